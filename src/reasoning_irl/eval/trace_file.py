"""Reads a traces file, ours or another program's, into what the reward model can score."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.data.records import Span, make_prompt, step_spans
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.pieces import decode, pieces_at, spans_of, step_ids, token_pieces
from reasoning_irl.eval.report import locate_step
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True)
class Trace:
    """A sampled trace. `pieces` (T,) join to its completion; `step_ids` (T,) count from 1, 0 is outside all steps."""

    row: dict[str, Any]  # as it stood in the file
    problem: str
    split: str
    correct: bool | None
    sequence: TokenSequence
    pieces: list[str]
    step_ids: list[int]
    n_steps: int


def read_traces(path: Path, tokenizer: PreTrainedTokenizerBase, validation_share: float, seed: int) -> list[Trace]:
    """The traces of a file, of which only question (or prompt), completion and correct must be there.

    Token ids are taken from the file where it has them, unless they are another tokenizer's: then all texts are
    encoded anew. Problems of a file without splits are dealt out by a seeded shuffle. Raises DataError, naming file
    and line, for a row that cannot be used.
    """
    if not path.is_file():
        raise DataError(f"there is no traces file {path}: run evaluate.py first, or set eval.traces=FILE")
    rows = [(_checked(path, line, row), line) for line, row in read_jsonl(path)]
    if not rows:
        raise DataError(f"{path} holds no traces: write one JSON object a line, with question, completion, correct")
    problems = [_problem(row) for row, _ in rows]
    validation = _validation_problems(problems, validation_share, seed)
    with_ids = [row for row, _ in rows if "token_ids" in row]
    # By most rows: a short completion may come out right by accident, and a broken row shall be named.
    has_own_ids = 2 * sum(_are_tokens_of(tokenizer, row) for row in with_ids) > len(with_ids)
    if with_ids and not has_own_ids:
        logger.warning("the token_ids in %s are another tokenizer's: prompts and completions are encoded anew", path)
    traces = []
    prompts: dict[str, tuple[int, ...]] = {}  # a problem's prompt is encoded once
    for (row, line), problem in zip(rows, problems, strict=True):
        is_encoded = has_own_ids and "prompt_ids" in row
        if not is_encoded and problem not in prompts:
            prompts[problem] = encode_prompt(tokenizer, _messages(row))
        prompt_ids = tuple(row["prompt_ids"]) if is_encoded else prompts[problem]
        completion_ids, pieces = _encode(tokenizer, row, path, line, has_own_ids)
        spans = _steps(row)
        split = row.get("split") or (VALIDATION if problem in validation else TEST)
        traces.append(
            Trace(
                row,
                problem,
                split,
                None if row["correct"] is None else bool(row["correct"]),
                TokenSequence(prompt_ids, completion_ids),
                pieces,
                step_ids(row["completion"], spans_of(pieces), spans),
                len(spans),
            )
        )
    if all(trace.split == VALIDATION for trace in traces):
        raise DataError(f"{path} has no test problem: every trace is of the validation split")
    return traces


def _checked(path: Path, line: int, row: dict[str, Any]) -> dict[str, Any]:
    if not row.get("question") and not row.get("prompt"):
        raise DataError(f"{path}:{line}: the trace has no 'question' (or 'prompt'); each line needs one")
    for key in ("completion", "correct"):
        if key not in row:
            raise DataError(f"{path}:{line}: the trace has no '{key}'; each line needs it")
    if not isinstance(row["completion"], str):
        raise DataError(f"{path}:{line}: 'completion' is a {type(row['completion']).__name__}; write it as text")
    if row["correct"] not in (True, False, None):
        raise DataError(f"{path}:{line}: 'correct' must be true, false or null")
    if row.get("split") not in (VALIDATION, TEST, None):
        raise DataError(f"{path}:{line}: 'split' must be validation or test, or be left out")
    step = row.get("first_error_step")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 1):
        raise DataError(f"{path}:{line}: 'first_error_step' must be a step's number from 1, or null")
    return row


def _messages(row: dict[str, Any]) -> list[dict[str, str]]:
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, list) else make_prompt(str(row.get("question") or prompt), "")


def _problem(row: dict[str, Any]) -> str:
    return str(row["id"]) if row.get("id") is not None else _messages(row)[-1]["content"]


def _validation_problems(problems: Sequence[str], share: float, seed: int) -> set[str]:
    distinct = sorted(set(problems))
    random.Random(f"split {seed}").shuffle(distinct)
    return set(distinct[: min(round(share * len(distinct)), len(distinct) - 1)])


def _are_tokens_of(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> bool:
    """Whether the row's token ids say its completion."""
    ids = row["token_ids"]
    return all(0 <= i < len(tokenizer) for i in ids) and decode(tokenizer, ids) == row["completion"]


def _encode(
    tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], path: Path, line: int, has_own_ids: bool
) -> tuple[tuple[int, ...], list[str]]:
    """The ids (T,) of a completion and their texts (T,)."""
    text = row["completion"]
    if has_own_ids and "token_ids" in row:
        if not _are_tokens_of(tokenizer, row):
            raise DataError(
                f"{path}:{line}: 'token_ids' are not the reward model's tokens for 'completion': leave out token_ids, "
                "prompt_ids, token_logprobs and tokens, and the text is encoded anew"
            )
        # Not the row's own `tokens`: an earlier scoring wrote there those of its reward model.
        ids = tuple(row["token_ids"])
        pieces = token_pieces(tokenizer, ids)
    else:
        ids, spans = encode_completion(tokenizer, text, NO_LIMIT)
        if row.get("truncated"):  # a trace that was cut off did not end itself
            ids, spans = ids[:-1], spans[:-1]
        pieces = pieces_at(text, spans)
    if not ids:
        raise DataError(f"{path}:{line}: 'completion' has no tokens to score")
    return ids, pieces


def _steps(row: dict[str, Any]) -> list[Span]:
    """Where the steps stand that the file names, which may be cut by a rule of its own; else those of the text."""
    text, named = row["completion"], row.get("steps")
    spans = step_spans(text)
    if not named or len(named) == len(spans):
        return spans
    located = [locate_step(text, named, number) for number in range(1, len(named) + 1)]
    found = [span for span in located if span]
    return found if len(found) == len(named) else spans
