from pathlib import Path

import pytest

from reasoning_irl.data.gsm8k import gsm8k_kd_record, gsm8k_record
from reasoning_irl.data.records import NoExpertError, Record, Row
from reasoning_irl.data.sources import read_rows, to_records
from reasoning_irl.text.trace import format_trace
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import write_rows

SOLUTION = (
    "Mia packs 600*2 = <<600*2=1200>>1,200 pens. \n\nShe keeps half, so 1,200/2 = $<<1200/2=600>>600.\n#### 1,800"
)


def write(folder: Path, *answers: str) -> Path:
    return write_rows(folder / "train.jsonl", [{"question": "How many?", "answer": text} for text in answers])


def load_gsm8k(path: Path, system_prompt: str) -> list[Record]:
    return to_records(read_rows(str(path), None, "train", "dataset.path"), gsm8k_record, system_prompt)


def test_calculator_marks_and_commas_are_removed(tmp_path: Path) -> None:
    (record,) = load_gsm8k(write(tmp_path, SOLUTION), "Think.")
    reasoning = "Mia packs 600*2 = 1,200 pens.\nShe keeps half, so 1,200/2 = $600."
    assert record.target == format_trace(reasoning, "1800")
    assert (record.id, record.answer, record.question) == ("gsm8k-train-1", "1800", "How many?")
    assert record.prompt[0] == {"role": "system", "content": "Think."}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("no mark", "has no line '####"),
        ("steps\n####  ", "no result after"),
        ("#### 7", "no worked solution before"),
        (" ", "has no 'answer'"),
    ],
)
def test_bad_record_is_named(tmp_path: Path, answer: str, message: str) -> None:
    path = write(tmp_path, SOLUTION, answer)
    with pytest.raises(DataError, match=message) as caught:
        load_gsm8k(path, "")
    assert str(caught.value).startswith(f"{path}:2:")


def kd(answer: str) -> Record:
    return gsm8k_kd_record(Row("train row 3", "train-3", {"question": "How many?", "answer": answer}), "Think.")


@pytest.mark.parametrize(
    ("box", "answer"),
    [
        ("\\boxed{1,800}", "1800"),
        ("\\boxed{\\text{18 apples}}", "18"),
        ("\\boxed{\\$18.50}", "18.50"),
        ("\\boxed{\\frac{1}{2}}", "1/2"),
        ("\\boxed{7}, no: \\boxed{18}", "18"),
        ("\\boxed{{1{,}800}}", "1800"),
        ("\\boxed{18\\%}", "18"),
    ],
)
def test_answer_is_the_number_in_the_last_box(box: str, answer: str) -> None:
    record = kd(f"<think>\nSo \\boxed{{5}}?\n\nNo.\n</think>\n\nIt is {box}.")
    assert record.target == format_trace("So \\boxed{5}?\n\nNo.", answer)
    assert (record.id, record.answer) == ("gsm8k_kd-train-3", answer)


def test_box_inside_the_reasoning_is_used_if_there_is_none_after_it() -> None:
    assert kd("<think>So \\boxed{5}.</think> Five.").answer == "5"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("<think>cut off \\boxed{5}", "no reasoning that ends"),
        ("<think> </think> \\boxed{5}", "no reasoning that ends"),
        ("<think>so</think> five", "no number"),
        ("<think>so</think> \\boxed{5", "no number"),
        ("<think>so</think> \\boxed{x + 1 = 2}", "no number"),
        ("worked out\n#### 5", "no reasoning that ends"),
    ],
)
def test_row_without_an_expert_says_why(answer: str, reason: str) -> None:
    with pytest.raises(NoExpertError, match=reason):
        kd(answer)
