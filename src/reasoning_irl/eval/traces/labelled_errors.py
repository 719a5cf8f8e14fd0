"""Traces whose first wrong step is known: errors that a policy made, and errors planted into expert traces."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import DatasetConfig, PerturbationKind
from reasoning_irl.data.loading import load_test, number_limit
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Trace
from reasoning_irl.text.token_spans import step_ids
from reasoning_irl.text.trace import step_spans


@dataclass(frozen=True)
class SteppedTrace:
    """A trace without a wrong step; `step_ids` (T,) give the step of each token."""

    problem: str
    split: str
    sequence: TokenSequence
    step_ids: list[int]
    n_steps: int


@dataclass(frozen=True)
class LabelledError(SteppedTrace):
    """A trace whose first wrong step (counted from 1) is known."""

    step: int
    kind: PerturbationKind | None = None  # of a planted edit
    edited: tuple[int, ...] | None = None  # indices of the tokens that a planted edit changed
    question: str = ""  # of a planted edit

    @property
    def wrong(self) -> list[bool]:
        """(T,) the tokens of the planted edit if known, else those of the wrong step."""
        return [
            i in self.edited if self.edited is not None else step == self.step for i, step in enumerate(self.step_ids)
        ]


@dataclass
class ErrorSet:
    """Traces of one kind (natural or planted): those with a wrong step, and sound ones."""

    errors: list[LabelledError] = field(default_factory=list)
    sound: list[SteppedTrace] = field(default_factory=list)


def natural_errors(traces: Sequence[Trace]) -> tuple[ErrorSet, list[int], list[int], int]:
    """(errors that a policy made and sound traces, indices of the errors, indices of the sound, test errors left out).

    Errors are left out if the labelled step has no tokens: it is missing, or was cut off. A trace with a
    wrong answer and no labelled step is in neither list, because the place of its error is unknown. A trace is sound
    if its label says so (`sound`) or, without such a label, if its answer is right.
    """
    found, of_errors, of_sound, left_out = ErrorSet(), [], [], 0
    for index, trace in enumerate(traces):
        step = trace.row.get("first_error_step")
        shared = (trace.problem, trace.split, trace.sequence, trace.step_ids, trace.n_steps)
        if step is None and trace.row.get("sound", trace.correct):
            found.sound.append(SteppedTrace(*shared))
            of_sound.append(index)
        elif step is not None and step in trace.step_ids:
            found.errors.append(LabelledError(*shared, step))
            of_errors.append(index)
        elif step is not None:
            left_out += trace.split == TEST
    return found, of_errors, of_sound, left_out


def planted_errors(
    dataset: DatasetConfig,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    kinds: Sequence[PerturbationKind],
    n: int,
    max_completion_length: int,
    seed: int,
) -> ErrorSet:
    """Expert traces, intact and with one planted edit, of up to n test problems and n validation problems.

    They are the problems of `traces`; if those are not the run's, the run's test data is split between the two.
    """
    rng = random.Random(f"planted {seed}")
    found = ErrorSet()
    for split, records in _experts(dataset, traces, n).items():
        for record in records:
            prompt = encode_prompt(tokenizer, record.prompt)
            edits = sample_perturbations(record.target, record.question, kinds, 1, rng, max_value=number_limit(dataset))
            for edit in edits:
                ids, spans = encode_completion(tokenizer, edit.text, max_completion_length)
                steps = step_spans(edit.text)
                of_tokens = step_ids(edit.text, spans, steps)
                if edit.step not in of_tokens:  # cut off
                    continue
                first, last = edit.span
                edited = tuple(i for i, (start, end) in enumerate(spans) if start < last and first < end)
                sequence = TokenSequence(prompt, ids)
                found.errors.append(
                    LabelledError(
                        record.id, split, sequence, of_tokens, len(steps), edit.step, edit.kind, edited, record.question
                    )
                )
            if edits:
                ids, spans = encode_completion(tokenizer, record.target, max_completion_length)
                steps = step_spans(record.target)
                sequence, of_tokens = TokenSequence(prompt, ids), step_ids(record.target, spans, steps)
                found.sound.append(SteppedTrace(record.id, split, sequence, of_tokens, len(steps)))
    return found


def _experts(dataset: DatasetConfig, traces: Sequence[Trace], n: int) -> dict[str, list[Record]]:
    _, records = load_test(dataset, 0, None)
    by_split = {split: {trace.problem for trace in traces if trace.split == split} for split in (TEST, VALIDATION)}
    chosen = {split: [r for r in records if r.id in ids][:n] for split, ids in by_split.items()}
    if any(chosen.values()):
        return chosen
    n = min(n, len(records) // 2)
    return {TEST: records[:n], VALIDATION: records[n : 2 * n]}
