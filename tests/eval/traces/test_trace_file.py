"""Traces whose token ids are another tokenizer's than the reader's."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import encode_completion, encode_prompt
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils.errors import DataError
from tests.helpers.tokenizers import COARSE, FINE

TEXTS = ["<think>\n12 + 30 = 42\n</think>\n<answer>\n42\n</answer>", "naïve 😀 42", "<think>\n1"]
PROMPT = make_prompt("How many are 12 and 30?", "")


def rows(tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """As evaluate.py writes them; the last one was cut off."""
    found = []
    for number, text in enumerate(TEXTS):
        truncated = number == len(TEXTS) - 1
        ids, _ = encode_completion(tokenizer, text, 1000)
        ids = ids[:-1] if truncated else ids
        found.append(
            {
                "id": f"p{number}",
                "prompt": PROMPT,
                "completion": text,
                "correct": number == 0,
                "truncated": truncated,
                "tokens": token_pieces(tokenizer, ids),
                "prompt_ids": list(encode_prompt(tokenizer, PROMPT)),
                "token_ids": list(ids),
                "token_logprobs": [-0.5] * len(ids),
            }
        )
    return found


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_own_ids_are_kept_and_others_are_encoded_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", rows(COARSE))
    for reader in (COARSE, FINE):
        traces = read_traces(file, reader, 0.0, 0)
        for trace, expected in zip(traces, rows(reader), strict=True):
            assert trace.sequence.completion_ids == tuple(expected["token_ids"])  # no end token where it was cut off
            assert trace.sequence.prompt_ids == tuple(expected["prompt_ids"])
            assert trace.pieces == expected["tokens"]
            assert "".join(trace.pieces) == expected["completion"]
            assert len(trace.step_ids) == len(trace.pieces)
    assert traces[0].sequence.completion_ids != tuple(rows(COARSE)[0]["token_ids"])


def test_ids_that_are_no_canonical_tokens_are_kept(tmp_path: Path) -> None:
    lines = rows(COARSE)
    letters = [COARSE.convert_tokens_to_ids(letter) for letter in "42"]
    assert COARSE("42")["input_ids"] != letters
    lines.append({**lines[0], "id": "odd", "completion": "42", "token_ids": letters, "tokens": None})
    trace = read_traces(write(tmp_path / "t.jsonl", lines), COARSE, 0.0, 0)[-1]
    assert trace.sequence.completion_ids == tuple(letters)
    assert trace.pieces == ["4", "2"]


def test_pieces_that_an_earlier_scoring_wrote_are_not_taken_for_those_of_the_ids(tmp_path: Path) -> None:
    lines = rows(COARSE)
    for line, other in zip(lines, rows(FINE), strict=True):
        line["tokens"] = other["tokens"]
    traces = read_traces(write(tmp_path / "t.jsonl", lines), COARSE, 0.0, 0)
    assert [trace.pieces for trace in traces] == [line["tokens"] for line in rows(COARSE)]


def test_a_row_whose_ids_are_not_its_text_is_named(tmp_path: Path) -> None:
    lines = rows(COARSE)
    lines[1]["token_ids"] = [9]
    with pytest.raises(DataError, match=r"t\.jsonl:2: 'token_ids' are not the reward model's tokens"):
        read_traces(write(tmp_path / "t.jsonl", lines), COARSE, 0.0, 0)
