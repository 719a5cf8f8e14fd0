import json
from pathlib import Path

import pytest

from reasoning_irl.data.gsm8k import load_gsm8k
from reasoning_irl.data.records import format_trace
from reasoning_irl.utils.errors import DataError

SOLUTION = (
    "Mia packs 600*2 = <<600*2=1200>>1,200 pens. \n\nShe keeps half, so 1,200/2 = $<<1200/2=600>>600.\n#### 1,800"
)


def write(folder: Path, *answers: str) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"question": "How many?", "answer": text}) + "\n" for text in answers))
    return path


def test_marks_and_commas_go(tmp_path: Path) -> None:
    (record,) = load_gsm8k(write(tmp_path, SOLUTION), "Think.")
    reasoning = "Mia packs 600*2 = 1,200 pens.\nShe keeps half, so 1,200/2 = $600."
    assert record.target == format_trace(reasoning, "1800")
    assert (record.id, record.answer, record.question) == ("gsm8k-train-1", "1800", "How many?")
    assert record.prompt[0] == {"role": "system", "content": "Think."}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("no mark", "has no line '####"),
        ("steps\n####  ", "no result behind"),
        ("#### 7", "no worked solution before"),
        (" ", "has no 'answer'"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, answer: str, message: str) -> None:
    path = write(tmp_path, SOLUTION, answer)
    with pytest.raises(DataError, match=message) as caught:
        load_gsm8k(path, "")
    assert str(caught.value).startswith(f"{path}:2:")


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="openai/grade-school-math") as caught:
            load_gsm8k(path, "")
        assert str(path) in str(caught.value)
        assert "dataset.path=FILE" in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no records"):
        load_gsm8k(write(tmp_path), "")
