from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.data.jsonl import own_record, read_jsonl
from reasoning_irl.data.records import Record
from reasoning_irl.data.sources import read_rows, to_records
from reasoning_irl.text.trace import format_trace
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import write_rows

ROW = {"question": "3 + 4?", "reasoning": "3 + 4 = 7", "answer": "7"}


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    return write_rows(folder / "mine.jsonl", rows)


def load_jsonl(path: Path, system_prompt: str) -> list[Record]:
    return to_records(read_rows(str(path), None, "train", "dataset.path"), own_record, system_prompt)


def test_read_jsonl_counts_blank_lines(tmp_path: Path) -> None:
    assert list(read_jsonl(write(tmp_path, {"a": 1}, "", {"b": 2}))) == [(1, {"a": 1}), (3, {"b": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{not json", "not valid JSON"), ("[1, 2]", "JSON list"), ("7", "JSON int")],
)
def test_read_jsonl_names_the_bad_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, ROW, line)
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(path))
    assert f"{path}:2:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_jsonl_rejects_other_encodings_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"question": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:1: .*UTF-8"):
        list(read_jsonl(path))
    with pytest.raises(DataError, match="there is no file"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_own_rows_become_records(tmp_path: Path) -> None:
    first, second = load_jsonl(write(tmp_path, ROW, "", {**ROW, "id": 5, "answer": 7}), "Think.")
    assert (first.id, second.id) == ("mine-1", "5")
    assert first.prompt == [{"role": "system", "content": "Think."}, {"role": "user", "content": "3 + 4?"}]
    assert first.target == second.target == format_trace("3 + 4 = 7", "7")
    assert second.answer == "7"


@pytest.mark.parametrize(
    "reasoning",
    [
        "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>",
        "<think>3 + 4 = 7</think><answer>7</answer>",
        "3 + 4 = 7</think> <answer>7</answer>",
        "<think>3 + 4 = 7",
        "\n 3 + 4 = 7 \n",
    ],
)
def test_tagged_reasoning_gets_no_second_tags(tmp_path: Path, reasoning: str) -> None:
    (record,) = load_jsonl(write(tmp_path, {**ROW, "reasoning": reasoning}), "")
    assert record.target == format_trace("3 + 4 = 7", "7")


def test_wrong_answer_of_an_expert_stays_in_the_trace(tmp_path: Path) -> None:
    tagged = "<think>3 + 4 = 8</think><answer>8</answer>"
    (record,) = load_jsonl(write(tmp_path, {**ROW, "reasoning": tagged}), "")
    assert (record.target, record.answer) == (format_trace("3 + 4 = 8", "8"), "7")


@pytest.mark.parametrize("key", ["question", "reasoning", "answer"])
@pytest.mark.parametrize("value", [None, "", "  ", ["x"], True])
def test_missing_key_is_named(tmp_path: Path, key: str, value: object) -> None:
    path = write(tmp_path, ROW, {**ROW, key: value})
    with pytest.raises(DataError) as caught:
        load_jsonl(path, "")
    assert str(caught.value).startswith(f"{path}:2:")
    assert f"'{key}'" in str(caught.value)
    path = write(tmp_path, {k: v for k, v in ROW.items() if k != key})
    with pytest.raises(DataError, match=f"mine.jsonl:1: .*'{key}'"):
        load_jsonl(path, "")


def test_reasoning_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1: 'reasoning' has no text"):
        load_jsonl(write(tmp_path, {**ROW, "reasoning": "<think></think><answer>7</answer>"}), "")


def test_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no records"):
        load_jsonl(write(tmp_path, "", " "), "")
