"""Reads a traces file, ours or another program's, into what the reward model can score.

A file is read line by line and more than once, and of a row only what scoring needs is held: the rest is met again
when the scored file is written.
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

TEST, VALIDATION = "test", "validation"
HELD = ("id", "prompt", "question", "completion", "answer", "answer_kind", "format_ok", "first_error_step", "sound")
N_TRIED = 100  # rows that tell whose token ids a file holds

Row = dict[str, Any]
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Trace:
    """A sampled trace. `pieces` (T,) join to its completion; `step_ids` (T,) count from 1, 0 is outside all steps."""

    row: Row  # what stood in the file under the keys HELD
    problem: str
    split: str
    correct: bool | None
    sequence: TokenSequence
    pieces: list[str]
    step_ids: list[int]
    n_steps: int
    line: int = 0  # of the file, from 1
    logprobs: NDArray[np.float64] | None = None  # (T,) of the policy, where the file has them for these tokens
    entropies: NDArray[np.float64] | None = None  # likewise


@dataclass
class Skipped:
    """The rows of a file that cannot be used. The first one raises DataError, or all of them are listed by line."""

    path: Path
    on_error: OnError = OnError["raise"]
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, line: int, reason: str) -> None:
        if self.on_error != OnError.skip:
            raise DataError(f"{self.path}:{line}: {reason}; eval.on_error=skip leaves such rows out")
        self.reasons[line] = reason

    def summary(self) -> str:
        """How many there are, and the first of them."""
        line = min(self.reasons)
        n = len(self.reasons)
        return f"{n} row{'s' if n > 1 else ''} of {self.path} (line {line}: {self.reasons[line]})"


def plain_rows(path: Path, skipped: Skipped, lines: Set[int] | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file with their 1-based line numbers, checked and with the keys of our own files; or only `lines`.

    The first row that shows whose shape it has (see data/external.py) says so for the whole file.
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
                    raise DataError(f"the row is {found}-shaped, and those before it are {shape}: split the file")
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
    """The traces of a file, or of some `lines` of it; see `plain_rows` for what a row must hold.

    Token ids are taken from the file where it has them, unless they are another tokenizer's: then all texts are
    encoded anew. Problems of a file without splits are dealt out by a seeded shuffle. A row that cannot be used, such
    as one of more than `window` tokens, goes to `skipped`, which without one raises DataError with file and line.
    `system_prompt` stands before a question that has no prompt of its own.
    """
    if not path.is_file():
        raise DataError(f"there is no traces file {path}: run evaluate.py first, or set eval.traces=FILE")
    skipped = skipped or Skipped(path)
    problems: dict[int, str] = {}  # by line
    names: dict[str, str] = {}
    tried: list[bool] = []
    for line, row in plain_rows(path, skipped, lines):
        problem = problem_of(row)
        problems[line] = names.setdefault(problem, problem)
        if row.get("token_ids") and len(tried) < N_TRIED:
            tried.append(_are_tokens_of(tokenizer, row))
    if not problems:
        reason = next(
            iter(skipped.reasons.values()), "write one JSON object a line, with question, completion, correct"
        )
        raise DataError(f"{path} holds no traces that can be used: {reason}")
    validation = _validation_problems(names, validation_share, seed)
    # By most rows: a short completion may come out right by accident, and a broken row shall be named.
    has_own_ids = 2 * sum(tried) > len(tried)
    if tried and not has_own_ids:
        logger.warning("the token_ids in %s are another tokenizer's: prompts and completions are encoded anew", path)
    reader = _Reader(tokenizer, has_own_ids, window, system_prompt)
    traces = []
    for line, row in plain_rows(path, skipped, problems.keys()):
        split = row.get("split") or (VALIDATION if problems[line] in validation else TEST)
        try:
            traces.append(reader.trace(line, row, problems[line], split))
        except DataError as error:
            skipped.add(line, str(error))
    if all(trace.split == VALIDATION for trace in traces):
        raise DataError(f"{path} has no test problem: every trace is of the validation split, or was skipped")
    return traces


class _Reader:
    """Makes traces of rows. Texts and ids of tokens recur, and each is held once."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, has_own_ids: bool, window: int | None, system_prompt: str
    ) -> None:
        self._tokenizer, self._has_own_ids, self._window = tokenizer, has_own_ids, window
        self._system_prompt = system_prompt
        self._known: dict[Hashable, Any] = {}
        self._encoded: dict[str, tuple[int, ...]] = {}  # a problem's prompt is encoded once

    def trace(self, line: int, row: Row, problem: str, split: str) -> Trace:
        """Raises DataError, without the place, for a row that cannot be scored."""
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

    def _prompt(self, row: Row, problem: str) -> tuple[int, ...]:
        if self._has_own_ids and row.get("prompt_ids"):
            return tuple(row["prompt_ids"])
        if problem not in self._encoded:
            self._encoded[problem] = encode_prompt(self._tokenizer, _messages(row, self._system_prompt))
        return self._encoded[problem]

    def _completion(self, row: Row) -> tuple[tuple[int, ...], list[str]]:
        """The ids (T,) of a completion and their texts (T,)."""
        text: str = row["completion"]
        if self._has_own_ids and row.get("token_ids"):
            # Not the row's own `tokens`: an earlier scoring wrote there those of its reward model.
            ids = tuple(row["token_ids"])
            read, spans = token_spans(self._tokenizer, ids) if _in_vocabulary(self._tokenizer, ids) else (None, [])
            if read != text:
                raise DataError(
                    "'token_ids' are not the reward model's tokens for 'completion': leave out token_ids, prompt_ids, "
                    "token_logprobs and tokens, and the text is encoded anew"
                )
        else:
            ids, spans = encode_completion(self._tokenizer, text, NO_LIMIT)
            if row.get("truncated"):  # a trace that was cut off did not end itself
                ids, spans = ids[:-1], spans[:-1]
        if not ids:
            raise DataError("'completion' is empty and was cut off: it has no tokens to score")
        return ids, pieces_at(text, spans)


def check_row(row: Row) -> None:
    """Raises DataError, without the place, for a row that lacks something or holds it in another form."""
    prompt = row.get("prompt")
    if not row.get("question") and not prompt:
        raise DataError("the trace has no 'question' (or 'prompt'); each line needs one")
    if isinstance(prompt, list):
        if not prompt or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in prompt):
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
    if row.get("split") not in (VALIDATION, TEST, None):
        raise DataError("'split' must be validation or test, or be left out")
    step = row.get("first_error_step")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or step < 1):
        raise DataError("'first_error_step' must be a step's number from 1, or null")
    if step is not None and row.get("sound"):
        raise DataError("'sound' says that no step is wrong, and 'first_error_step' names one")
    if row.get("answer_kind", AnswerKind.text) not in list(AnswerKind):
        raise DataError(f"'answer_kind' must be {', '.join(AnswerKind)}, or be left out")
    for key, of, what in (
        ("steps", str, "texts"),
        ("token_ids", int, "whole numbers"),
        ("prompt_ids", int, "whole numbers"),
        ("token_logprobs", int | float, "numbers"),
        ("token_entropies", int | float, "numbers"),
    ):
        values = row.get(key)
        if values is not None and not (isinstance(values, list) and all(isinstance(value, of) for value in values)):
            raise DataError(f"'{key}' must be a list of {what}, or be left out")


def steps_of(row: Row) -> list[Span]:
    """Where the steps stand that the row names, which may be cut by a rule of its own; else those of the text.

    Raises DataError where a first wrong step is named among steps that the text does not show in this order.
    """
    text, named = row["completion"], row.get("steps")
    spans = steps_in(text, named)
    if named and row.get("first_error_step") is not None and texts_at(text, spans) != [step.strip() for step in named]:
        raise DataError("'completion' does not show the texts of 'steps' in their order, so the wrong one is not known")
    return spans


def _messages(row: Row, system_prompt: str = "") -> list[dict[str, str]]:
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, list) else make_prompt(str(row.get("question") or prompt), system_prompt)


def problem_of(row: Row) -> str:
    """What tells the samples of one problem from those of others: its id, else its question."""
    return str(row["id"]) if row.get("id") is not None else _messages(row)[-1]["content"]


def _validation_problems(problems: Iterable[str], share: float, seed: int) -> set[str]:
    distinct = sorted(set(problems))
    random.Random(f"split {seed}").shuffle(distinct)
    return set(distinct[: min(round(share * len(distinct)), len(distinct) - 1)])


def _in_vocabulary(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    size = len(tokenizer)
    return all(0 <= i < size for i in ids)


def _are_tokens_of(tokenizer: PreTrainedTokenizerBase, row: Row) -> bool:
    """Whether the row's token ids say its completion."""
    return _in_vocabulary(tokenizer, row["token_ids"]) and decode(tokenizer, row["token_ids"]) == row["completion"]


def _known_values(row: Row, key: str, n_tokens: int) -> NDArray[np.float64] | None:
    values = row.get(key)
    return np.array(values, dtype=np.float64) if values and len(values) == n_tokens else None
