"""Reading traces files: our own, those of other programs, those of other tokenizers, and broken ones."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.config.schema import OnError
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import encode_completion, encode_prompt
from reasoning_irl.eval.traces.trace_file import HELD, TEST, VALIDATION, Skipped, Trace, plain_rows, read_traces
from reasoning_irl.text.token_spans import spans_of, token_pieces
from reasoning_irl.utils.errors import DataError
from tests.helpers.tokenizers import COARSE, FINE
from tests.helpers.traces import (
    BROKEN_ROWS,
    FOUND,
    GOOD,
    MR_GSM8K,
    PROCESSBENCH,
    RIGHT,
    foreign_rows,
    write_rows,
)

TEXTS = ["<think>\n12 + 30 = 42\n</think>\n<answer>\n42\n</answer>", "naïve 😀 42", "<think>\n1"]
PROMPT = make_prompt("How many are 12 and 30?", "")


def sampled_rows(tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """Rows as evaluate.py writes them; the last one was truncated."""
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


def read(path: Path, tokenizer: PreTrainedTokenizerFast = COARSE, **keys: Any) -> list[Trace]:
    return read_traces(path, tokenizer, 0.0, 0, **keys)


# Rows that cannot be used


@pytest.mark.parametrize(("row", "reason"), BROKEN_ROWS)
def test_unusable_row_is_named_by_file_and_line(row: dict[str, Any] | str, reason: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [GOOD, "", row])
    with pytest.raises(DataError, match=r"t\.jsonl:3: ") as caught:
        read(file)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_skipped_rows_are_collected_by_line(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [GOOD, *(row for row, _ in BROKEN_ROWS), GOOD]
    file = write_rows(tmp_path / "t.jsonl", rows)
    skipped = Skipped(file, OnError.skip)
    assert [trace.line for trace in read(file, skipped=skipped)] == [1, len(rows)]
    assert sorted(skipped.reasons) == list(range(2, len(rows)))
    for line, (_, reason) in enumerate(BROKEN_ROWS, start=2):
        assert reason in skipped.reasons[line]
    assert skipped.summary().startswith(f"{len(BROKEN_ROWS)} rows of {file} (line 2: the trace has no 'completion'")


def test_file_without_usable_rows_is_an_error(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", ["{broken", {"question": "q"}])
    with pytest.raises(DataError, match=r"has no usable traces: the line is not valid JSON"):
        read(file, skipped=Skipped(file, OnError.skip))
    with pytest.raises(DataError, match="has no usable traces"):
        read(write_rows(tmp_path / "empty.jsonl", []))
    with pytest.raises(DataError, match=r"none\.jsonl not found"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no test problems"):
        read(write_rows(tmp_path / "validation.jsonl", [{**GOOD, "split": "validation"}]))


def test_broken_row_at_the_end_of_a_long_file_is_found_in_little_memory(tmp_path: Path) -> None:
    """The file is read line by line, and all rows are checked before any text is encoded."""
    path, n = tmp_path / "long.jsonl", 100_000
    with path.open("w") as file:
        row = '{"question": "q", "completion": "c", "correct": true}\n'
        file.writelines([row] * (n - 2))
        file.write('{"question"\n' + row)
    with pytest.raises(DataError, match=rf"long\.jsonl:{n - 1}: the line is not valid JSON"):
        read(path)
    tracemalloc.start()
    skipped = Skipped(path, OnError.skip)
    rows = plain_rows(path, skipped)
    assert sum(1 for _, _ in zip(rows, range(20_000), strict=False)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # bytes: a few rows and the file's buffer


def test_window_is_exact_to_the_token(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [GOOD])
    (trace,) = read(file)
    n_tokens = len(trace.sequence.prompt_ids) + len(trace.sequence.completion_ids)
    assert len(read(file, window=n_tokens)) == 1
    expected = f"have {n_tokens} tokens, more than the reward model's window of {n_tokens - 1}"
    with pytest.raises(DataError, match=expected):
        read(file, window=n_tokens - 1)


# Splits and prompts


def test_problems_without_a_split_are_assigned_whole_and_by_seed(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", foreign_rows(20))
    traces = read_traces(file, COARSE, 0.3, 0)
    splits = {trace.problem: {t.split for t in traces if t.problem == trace.problem} for trace in traces}
    assert len(splits) == 20
    assert all(len(of_problem) == 1 for of_problem in splits.values())
    assert sum(of_problem == {VALIDATION} for of_problem in splits.values()) == 6
    assert read_traces(file, COARSE, 0.3, 0) == traces
    assert [t.split for t in read_traces(file, COARSE, 0.3, 1)] != [t.split for t in traces]


def test_named_splits_and_ids_are_kept(tmp_path: Path) -> None:
    rows = [{**GOOD, "id": number // 2, "split": split} for number, split in enumerate([VALIDATION, TEST] * 2)]
    traces = read_traces(write_rows(tmp_path / "t.jsonl", rows), COARSE, 0.9, 0)
    assert [trace.split for trace in traces] == [VALIDATION, TEST] * 2
    assert [trace.problem for trace in traces] == ["0", "0", "1", "1"]


def test_system_prompt_precedes_questions_without_a_prompt(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "prompt": PROMPT}]
    plain, with_prompt = read(write_rows(tmp_path / "t.jsonl", rows), system_prompt="Think.")
    assert plain.sequence.prompt_ids == encode_prompt(COARSE, make_prompt(GOOD["question"], "Think."))
    assert with_prompt.sequence.prompt_ids == encode_prompt(COARSE, PROMPT)


# Token ids


def test_ids_of_this_tokenizer_are_kept_and_others_are_encoded_again(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", sampled_rows(COARSE))
    for reader in (COARSE, FINE):
        traces = read(file, reader)
        for trace, expected in zip(traces, sampled_rows(reader), strict=True):
            assert trace.sequence.completion_ids == tuple(expected["token_ids"])  # no end token if truncated
            assert trace.sequence.prompt_ids == tuple(expected["prompt_ids"])
            assert trace.pieces == expected["tokens"]
            assert "".join(trace.pieces) == expected["completion"]
            assert len(trace.step_ids) == len(trace.pieces)
            assert (trace.logprobs is None) == (reader is FINE)
    assert traces[0].sequence.completion_ids != tuple(sampled_rows(COARSE)[0]["token_ids"])


def test_non_canonical_tokens_are_kept(tmp_path: Path) -> None:
    rows = sampled_rows(COARSE)
    letters = [COARSE.convert_tokens_to_ids(letter) for letter in "42"]
    assert COARSE("42")["input_ids"] != letters
    rows.append(
        {**rows[0], "id": "odd", "completion": "42", "token_ids": letters, "tokens": None, "token_logprobs": None}
    )
    trace = read(write_rows(tmp_path / "t.jsonl", rows))[-1]
    assert trace.sequence.completion_ids == tuple(letters)
    assert trace.pieces == ["4", "2"]


def test_token_texts_of_an_earlier_scoring_are_not_read(tmp_path: Path) -> None:
    rows = sampled_rows(COARSE)
    for row, other in zip(rows, sampled_rows(FINE), strict=True):
        row["tokens"] = other["tokens"]
    traces = read(write_rows(tmp_path / "t.jsonl", rows))
    assert [trace.pieces for trace in traces] == [row["tokens"] for row in sampled_rows(COARSE)]


def test_ids_that_do_not_decode_to_the_completion_are_an_error(tmp_path: Path) -> None:
    rows = sampled_rows(COARSE)
    rows[1] |= {"token_ids": [9], "token_logprobs": None}
    with pytest.raises(DataError, match=r"t\.jsonl:2: 'token_ids' are not the reward model's tokens"):
        read(write_rows(tmp_path / "t.jsonl", rows))


def test_log_probabilities_without_their_token_ids_are_ignored(tmp_path: Path) -> None:
    """Trap: values of another tokenizer's tokens, whose number happens to agree."""
    rows = [{key: value for key, value in row.items() if key != "token_ids"} for row in sampled_rows(COARSE)]
    traces = read(write_rows(tmp_path / "t.jsonl", rows))
    assert [len(trace.pieces) for trace in traces] == [len(row["token_logprobs"]) for row in rows]
    assert [trace.logprobs for trace in traces] == [None] * len(rows)


def test_truncated_trace_without_ids_gets_no_end_token(tmp_path: Path) -> None:
    rows = foreign_rows(2)
    rows[0]["truncated"] = True
    truncated, whole, *_ = read(write_rows(tmp_path / "t.jsonl", rows))
    assert whole.sequence.completion_ids[-1] == COARSE.eos_token_id
    assert truncated.sequence.completion_ids[-1] != COARSE.eos_token_id
    assert "".join(truncated.pieces) == RIGHT


def test_traces_keep_what_scoring_needs_and_share_their_tokens(tmp_path: Path) -> None:
    """Trap: whole rows, each with its own copy of token texts and ids, take most of the memory."""
    rows = [{**row, "notes": ["x" * 1000], "token_rewards": [0.5] * 9, "tokens": ["3"] * 9} for row in foreign_rows()]
    first, *others = read(write_rows(tmp_path / "t.jsonl", rows))
    for trace in others:
        assert set(trace.row) <= set(HELD)
    same = others[2]  # the first trace of the next problem
    assert same.pieces == first.pieces
    assert all(a is b for a, b in zip(same.pieces, first.pieces, strict=True))
    assert all(a is b for a, b in zip(same.sequence.completion_ids, first.sequence.completion_ids, strict=True))
    assert others[0].sequence.prompt_ids is first.sequence.prompt_ids


# Steps and formats of other programs


def shown_steps(trace: Trace) -> list[list[str]]:
    """The words that the tokens of each step show."""
    text, spans = "".join(trace.pieces), spans_of(trace.pieces)
    places = [
        [span for span, step in zip(spans, trace.step_ids, strict=True) if step == n + 1] for n in range(trace.n_steps)
    ]
    return [text[of_step[0][0] : of_step[-1][1]].split() for of_step in places if of_step]


@pytest.mark.parametrize("row", [PROCESSBENCH, MR_GSM8K, FOUND])
def test_steps_are_those_of_the_benchmark(row: dict[str, Any], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [row])
    (trace,) = read(file)
    ((_, plain),) = plain_rows(file, Skipped(file))
    assert trace.n_steps == len(plain["steps"])
    assert shown_steps(trace) == [step.split() for step in plain["steps"]]


@pytest.mark.parametrize(
    "steps",
    [
        ["3 + 4 = 7", "3 + 4 = 7", "7"],  # the same step twice
        ["3 + 4\n= 7", "7 + 1 = 8"],  # fewer steps than lines
        ["3 + 4 = 7", "7 + 1\n= 8"],  # joined by a space: as many lines as steps, but others
        ["7", "7 7", "7 7 7"],  # each is part of the next
    ],
)
@pytest.mark.parametrize("joint", ["\n", "\n\n", " "])
def test_steps_named_in_the_file_are_found_exactly(steps: list[str], joint: str, tmp_path: Path) -> None:
    """Trap: counting lines in a text that was split by another rule puts the label on the wrong step."""
    row = {**GOOD, "completion": joint.join(steps), "steps": steps, "first_error_step": 2, "correct": False}
    (trace,) = read(write_rows(tmp_path / "t.jsonl", [row]))
    assert trace.n_steps == len(steps)
    assert shown_steps(trace) == [step.split() for step in steps]


def test_formats_cannot_be_mixed_in_one_file(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "t.jsonl", [PROCESSBENCH, MR_GSM8K])
    with pytest.raises(DataError, match=r"t\.jsonl:2: the row is in MR-GSM8K format, but earlier rows are Process"):
        list(plain_rows(file, Skipped(file)))
    file = write_rows(tmp_path / "u.jsonl", [PROCESSBENCH, {"id": "b", "steps": ["a"], "label": 0}])
    with pytest.raises(DataError, match=r"u\.jsonl:2: "):
        list(plain_rows(file, Skipped(file)))


def test_missing_step_is_wrong_at_its_place(tmp_path: Path) -> None:
    """As evaluate.py labels a sample that stops before the expert does."""
    row = {**GOOD, "completion": "<think>\n1 + 1 = 2\n</think>", "steps": ["1 + 1 = 2"], "correct": False}
    (trace,) = read(write_rows(tmp_path / "short.jsonl", [{**row, "first_error_step": 2}]))
    assert trace.row["first_error_step"] == 2
    with pytest.raises(DataError, match="there are 1 'steps'"):
        read(write_rows(tmp_path / "shorter.jsonl", [{**row, "first_error_step": 3}]))


def test_numbers_as_pandas_writes_them_are_read(tmp_path: Path) -> None:
    row = {**GOOD, "id": 1.0, "truncated": 0, "format_ok": 1}
    (trace,) = read(write_rows(tmp_path / "pandas.jsonl", [row]))
    assert trace.problem == "1.0"
    with pytest.raises(DataError, match="'id' is a float"):
        read(write_rows(tmp_path / "fraction.jsonl", [{**GOOD, "id": 1.5}]))
