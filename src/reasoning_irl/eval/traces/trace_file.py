"""Reads a traces file, written by this project or by another program, for scoring by the reward model.

The file is read line by line, several times. Only what scoring needs of a row is kept in memory; the rest is read
again when the scored file is written.
"""

import random
from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import AnswerKind, OnError
from reasoning_irl.data.jsonl import parse_object
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.traces.benchmarks import Shape, shape_of, to_plain
from reasoning_irl.text.token_spans import decode, pieces_at, spans_of, step_ids, steps_in, texts_at, token_spans
from reasoning_irl.text.trace import Span
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import check_traces

TEST, VALIDATION = "test", "validation"
HELD = ("id", "prompt", "question", "completion", "answer", "answer_kind", "format_ok", "first_error_step", "sound")
N_TRIED = 100  # rows checked to find out whether the token ids of a file are the reader's

TraceRow = dict[str, Any]
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Trace:
    """A sampled trace. `pieces` (T,) join to its completion; `step_ids` (T,) count from 1; 0 is outside all steps."""

    row: TraceRow  # the values of the keys HELD in the file
    problem: str
    split: str
    correct: bool | None
    sequence: TokenSequence
    pieces: list[str]
    step_ids: list[int]
    n_steps: int
    line: int = 0  # in the file, from 1
    logprobs: NDArray[np.float64] | None = None  # (T,) of the policy, if the file has them for these tokens
    entropies: NDArray[np.float64] | None = None  # same


@dataclass
class Skipped:
    """The rows of a file that cannot be used. Raises DataError for the first one, or collects them by line."""

    path: Path
    on_error: OnError = OnError["raise"]
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, line: int, reason: str) -> None:
        if self.on_error == OnError["raise"]:
            raise DataError(f"{self.path}:{line}: {reason}; set eval.on_error=skip to skip such rows")
        self.reasons[line] = reason

    def summary(self) -> str:
        """The number of rows, and the reason for the first."""
        line = min(self.reasons)
        n = len(self.reasons)
        return f"{n} row{'s' if n > 1 else ''} of {self.path} (line {line}: {self.reasons[line]})"


def plain_rows(path: Path, skipped: Skipped, lines: Set[int] | None = None) -> Iterator[tuple[int, TraceRow]]:
    """Yields the rows of a file (or only of `lines`) with their line numbers from 1, checked and in the plain format.

    The first row whose keys show its format (see benchmarks.py) sets the format of the whole file.
    """
    shape: Shape | None = None
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip() or (lines is not None and line not in lines):
                continue
            try:
                row = parse_object(text)
                found = shape_of(row)
                if shape is not None and found not in (shape, None):
                    raise DataError(f"the row is in {found} format, but earlier rows are {shape}: split the file")
                row = to_plain(row, shape or found or Shape.plain)
                check_row(row)
            except DataError as error:
                skipped.add(line, str(error))
                continue
            shape = shape or found
            yield line, row


def read_traces(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    validation_share: float,
    seed: int,
    *,
    window: int | None = None,
    skipped: Skipped | None = None,
    lines: Set[int] | None = None,
    system_prompt: str = "",
) -> list[Trace]:
    """Reads the traces of a file, or only those on `lines`; see `check_row` for what a row must contain.

    Token ids are taken from the file if it has them, unless they belong to another tokenizer: then all texts are
    re-encoded. If a row names no split, its problem is assigned to one by a seeded shuffle. A row that cannot be used,
    for example one of more than `window` tokens, is added to `skipped`; without `skipped`, it raises DataError with
    file and line. `system_prompt` is put before each question that has no prompt of its own.
    """
    check_traces(path)
    skipped = skipped or Skipped(path)
    problems: dict[int, str] = {}  # by line
    names: dict[str, str] = {}
    questions: dict[str, str] = {}  # by problem
    tried: list[bool] = []
    for line, row in plain_rows(path, skipped, lines):
        problem, asked = problem_of(row), _messages(row)[-1]["content"]
        if questions.setdefault(problem, asked) != asked:
            skipped.add(line, f"id {problem} has another question than before; give each question an id of its own")
            continue
        problems[line] = names.setdefault(problem, problem)
        if row.get("token_ids") and len(tried) < N_TRIED:
            tried.append(_are_tokens_of(tokenizer, row))
    if not problems:
        reason = next(
            iter(skipped.reasons.values()), "write one JSON object per line, with question, completion, correct"
        )
        raise DataError(f"{path} has no usable traces: {reason}")
    validation = _validation_problems(names, validation_share, seed)
    # Decided by majority: a short completion may match by accident, and a broken row must be reported as such.
    has_own_ids = 2 * sum(tried) > len(tried)
    if tried and not has_own_ids:
        logger.warning("re-encoding all prompts and completions: the token_ids in %s are from another tokenizer", path)
    reader = _Reader(tokenizer, has_own_ids, window, system_prompt)
    traces = []
    for line, row in plain_rows(path, skipped, problems.keys()):
        split = row.get("split") or (VALIDATION if problems[line] in validation else TEST)
        try:
            traces.append(reader.trace(line, row, problems[line], split))
        except DataError as error:
            skipped.add(line, str(error))
    if all(trace.split == VALIDATION for trace in traces):
        raise DataError(f"{path} has no test problems: every trace is in the validation split or was skipped")
    return traces


class _Reader:
    """Turns rows into traces. Token texts and ids are interned, because the same ones recur in many traces."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, has_own_ids: bool, window: int | None, system_prompt: str
    ) -> None:
        self._tokenizer, self._has_own_ids, self._window = tokenizer, has_own_ids, window
        self._system_prompt = system_prompt
        self._known: dict[Hashable, Any] = {}
        self._encoded: dict[str, tuple[int, ...]] = {}  # a problem's prompt is encoded once

    def trace(self, line: int, row: TraceRow, problem: str, split: str) -> Trace:
        """Raises DataError, without file and line, if the row cannot be scored."""
        prompt_ids = self._prompt(row, problem)
        completion_ids, pieces = self._completion(row)
        n_tokens = len(prompt_ids) + len(completion_ids)
        if self._window is not None and n_tokens > self._window:
            raise DataError(
                f"prompt and completion have {n_tokens} tokens, more than the reward model's window of {self._window}"
            )
        spans = steps_of(row)
        has_ids = row.get("token_ids") == list(completion_ids)
        held = {key: row[key] for key in HELD if row.get(key) is not None}
        if "prompt" in held:
            held["prompt"] = self._known.setdefault((problem, str(held["prompt"])), held["prompt"])
        return Trace(
            held,
            problem,
            split,
            None if row["correct"] is None else bool(row["correct"]),
            TokenSequence(self._known.setdefault(prompt_ids, prompt_ids), tuple(self._shared(completion_ids))),
            self._shared(pieces),
            step_ids(row["completion"], spans_of(pieces), spans),
            len(spans),
            line,
            _known_values(row, "token_logprobs", len(completion_ids)) if has_ids else None,
            _known_values(row, "token_entropies", len(completion_ids)) if has_ids else None,
        )

    def _shared(self, values: Iterable[Item]) -> list[Item]:
        return [self._known.setdefault(value, value) for value in values]

    def _prompt(self, row: TraceRow, problem: str) -> tuple[int, ...]:
        if self._has_own_ids and row.get("prompt_ids"):
            if not _in_vocabulary(self._tokenizer, row["prompt_ids"]):
                raise DataError("'prompt_ids' are not the reward model's tokens: remove prompt_ids and token_ids")
            return tuple(row["prompt_ids"])
        if problem not in self._encoded:
            self._encoded[problem] = encode_prompt(self._tokenizer, _messages(row, self._system_prompt))
        return self._encoded[problem]

    def _completion(self, row: TraceRow) -> tuple[tuple[int, ...], list[str]]:
        """The ids (T,) of a completion and their texts (T,)."""
        text: str = row["completion"]
        if self._has_own_ids and row.get("token_ids"):
            # Not the row's `tokens`, which an earlier scoring may have replaced by those of its reward model.
            ids = tuple(row["token_ids"])
            read, spans = token_spans(self._tokenizer, ids) if _in_vocabulary(self._tokenizer, ids) else (None, [])
            if read != text:
                raise DataError(
                    "'token_ids' are not the reward model's tokens for 'completion': remove token_ids, prompt_ids, "
                    "token_logprobs and tokens to have the text re-encoded"
                )
        else:
            ids, spans = encode_completion(self._tokenizer, text, NO_LIMIT)
            if row.get("truncated"):  # a truncated trace has no end token
                ids, spans = ids[:-1], spans[:-1]
        if not ids:
            raise DataError("'completion' is empty and truncated: it has no tokens to score")
        return ids, pieces_at(text, spans)


def check_row(row: TraceRow) -> None:
    """Raises DataError, without file and line, if a required key is missing or a value has the wrong form."""
    prompt = row.get("prompt")
    if not row.get("question") and not prompt:
        raise DataError("the trace has no 'question' (or 'prompt'); each line needs one")
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str | int | float | None) or isinstance(row.get(key), bool):
            raise DataError(f"'{key}' is a {type(row[key]).__name__}; write it as text")
    name = row.get("id")
    is_number = (
        isinstance(name, int | float) and not isinstance(name, bool) and float(name).is_integer()
    )  # as of pandas
    if not (name is None or isinstance(name, str) or is_number):
        raise DataError(f"'id' is a {type(row['id']).__name__}; write it as text or as a whole number")
    if isinstance(prompt, list):
        if not prompt or not all(map(_is_message, prompt)):
            raise DataError("'prompt' must be text, or a list of chat messages with role and content")
    elif prompt is not None and not isinstance(prompt, str):
        raise DataError(f"'prompt' is a {type(prompt).__name__}; write it as text or as a list of chat messages")
    for key in ("completion", "correct"):
        if key not in row:
            raise DataError(f"the trace has no '{key}'; each line needs it")
    if not isinstance(row["completion"], str):
        raise DataError(f"'completion' is a {type(row['completion']).__name__}; write it as text")
    if row["correct"] not in (True, False, None):
        raise DataError("'correct' must be true, false or null")
    for key in ("truncated", "sound", "format_ok"):
        if row.get(key) not in (True, False, None):
            raise DataError(f"'{key}' must be true or false, or omitted")
    if row.get("split") not in (VALIDATION, TEST, None):
        raise DataError("'split' must be validation or test, or omitted")
    step = row.get("first_error_step")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 1):
        raise DataError("'first_error_step' must be a step number, from 1, or null")
    if step is not None and row.get("sound"):
        raise DataError("'sound' says that no step is wrong, but 'first_error_step' names one")
    if row.get("answer_kind", AnswerKind.text) not in list(AnswerKind):
        raise DataError(f"'answer_kind' must be one of {', '.join(AnswerKind)}, or omitted")
    for key, of, what in (
        ("steps", str, "texts"),
        ("token_ids", int, "whole numbers"),
        ("prompt_ids", int, "whole numbers"),
        ("token_logprobs", int | float, "numbers"),
        ("token_entropies", int | float, "numbers"),
    ):
        values = row.get(key)
        is_list = isinstance(values, list)
        if values is not None and not (is_list and all(isinstance(v, of) and not isinstance(v, bool) for v in values)):
            raise DataError(f"'{key}' must be a list of {what}, or omitted")
    if step is not None and row.get("steps") and step > len(row["steps"]) + 1:  # a missing step is wrong at its place
        raise DataError(f"'first_error_step' is {step}, but there are {len(row['steps'])} 'steps'")
    for key in ("token_logprobs", "token_entropies"):
        if row.get(key) and row.get("token_ids") and len(row[key]) != len(row["token_ids"]):
            raise DataError(f"'{key}' has {len(row[key])} values for {len(row['token_ids'])} 'token_ids': remove it")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def steps_of(row: TraceRow) -> list[Span]:
    """The character spans of the row's `steps`, whatever rule split them; if it has none, those of the text's steps.

    Also falls back to the text's steps if the text does not contain the row's steps in order, but raises DataError if
    one of them is labelled as the first wrong step.
    """
    text, named = row["completion"], row.get("steps")
    spans = steps_in(text, named)
    if named and row.get("first_error_step") is not None and texts_at(text, spans) != [step.strip() for step in named]:
        raise DataError("'completion' does not contain the texts of 'steps' in order, so the wrong step is unknown")
    return spans


def _messages(row: TraceRow, system_prompt: str = "") -> list[dict[str, str]]:
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, list) else make_prompt(str(row.get("question") or prompt), system_prompt)


def problem_of(row: TraceRow) -> str:
    """The key that groups the samples of one problem: its id or, without one, its question."""
    return str(row["id"]) if row.get("id") is not None else _messages(row)[-1]["content"]


def _validation_problems(problems: Iterable[str], share: float, seed: int) -> set[str]:
    distinct = sorted(set(problems))
    random.Random(f"split {seed}").shuffle(distinct)
    return set(distinct[: min(round(share * len(distinct)), len(distinct) - 1)])


def _in_vocabulary(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    size = len(tokenizer)
    return all(0 <= i < size for i in ids)


def _are_tokens_of(tokenizer: PreTrainedTokenizerBase, row: TraceRow) -> bool:
    """Whether the row's token ids decode to its completion."""
    return _in_vocabulary(tokenizer, row["token_ids"]) and decode(tokenizer, row["token_ids"]) == row["completion"]


def _known_values(row: TraceRow, key: str, n_tokens: int) -> NDArray[np.float64] | None:
    values = row.get(key)
    return np.array(values, dtype=np.float64) if values and len(values) == n_tokens else None
