"""Samples of an offline reward: encoded as experts are, whatever else the traces file says."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data.records import Record
from reasoning_irl.data.samples import read_samples
from reasoning_irl.data.tokens import encode_record
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import write_rows


def read(path: Path, tokenizer: PreTrainedTokenizerFast, length: int = 200) -> list:
    return read_samples(path, tokenizer, "", 100, length)


def test_sample_with_an_experts_text_is_the_experts_sequence(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    rows = [{"question": r.question, "completion": r.target, "correct": None, "split": "test"} for r in records[:5]]
    file = write_rows(tmp_path / "samples.jsonl", rows)
    assert read(file, tokenizer) == [encode_record(tokenizer, r, r.target, 200) for r in records[:5]]
    assert read(file, tokenizer, 6) == [encode_record(tokenizer, r, r.target, 6) for r in records[:5]]


def test_truncated_sample_has_no_end_token(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    row = {"question": records[0].question, "completion": "<think>\n1 + 2", "truncated": True}
    file = write_rows(tmp_path / "samples.jsonl", [row, {**row, "truncated": False}])
    cut, whole = read(file, tokenizer)
    assert whole.completion_ids == (*cut.completion_ids, tokenizer.eos_token_id)
    (empty,) = read(write_rows(tmp_path / "empty.jsonl", [{**row, "completion": "", "truncated": None}]), tokenizer)
    assert empty.completion_ids == (tokenizer.eos_token_id,)
    cut, whole = read(file, tokenizer, 3)  # both are cut here, before the end token
    assert cut == whole


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"completion": "c"}, "samples.jsonl:2: the record has no 'question'"),
        ({"question": "q"}, "samples.jsonl:2: the record has no 'completion'"),
        ({"question": "3 " * 150, "completion": "c"}, "more than training.max_prompt_length=100"),
        ("{broken", "not valid JSON"),
        ({"question": "q", "completion": "", "truncated": True}, "empty and truncated"),
    ],
)
def test_unusable_row_is_named(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, row: dict[str, str] | str, reason: str
) -> None:
    file = write_rows(tmp_path / "samples.jsonl", [{"question": "3 + 4", "completion": "7"}, row])
    with pytest.raises(DataError, match=reason):
        read(file, tokenizer)


def test_file_without_samples_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="has no samples"):
        read(write_rows(tmp_path / "samples.jsonl", [""]), tokenizer)
