"""Does the lowest step score point at the first wrong step? Planted errors and natural ones, apart."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import DatasetConfig, DatasetName
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.records import Record, step_spans
from reasoning_irl.data.tokens import TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.metrics import chance_hit, first_error_hit, step_scores
from reasoning_irl.eval.pieces import step_ids
from reasoning_irl.eval.summary import Summary
from reasoning_irl.eval.trace_file import TEST, VALIDATION, Trace
from reasoning_irl.rewards.kinds import PerturbationKind
from reasoning_irl.rewards.perturbations import sample_perturbations

STEP_CHOICES = ("mean", "min", "drop")


@dataclass(frozen=True)
class LabelledError:
    """A trace whose first wrong step (from 1) is known; `step_ids` (T,) name the step of each token."""

    problem: str
    split: str
    sequence: TokenSequence
    step_ids: list[int]
    n_steps: int
    step: int


def natural_errors(traces: Sequence[Trace]) -> tuple[list[tuple[int, LabelledError]], int]:
    """Errors that a policy made, each with its place among `traces`; and how many test errors are left out.

    Left out are labels of a step that no token shows, such as a missing step or a trace that was cut off.
    """
    found, left_out = [], 0
    for place, trace in enumerate(traces):
        step = trace.row.get("first_error_step")
        if step is None:
            continue
        if step in trace.step_ids:
            error = LabelledError(trace.problem, trace.split, trace.sequence, trace.step_ids, trace.n_steps, step)
            found.append((place, error))
        else:
            left_out += trace.split == TEST
    return found, left_out


def planted_errors(
    dataset: DatasetConfig,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    kinds: Sequence[PerturbationKind],
    n: int,
    max_completion_length: int,
    seed: int,
) -> list[LabelledError]:
    """Up to n experts of the test problems and n of the validation problems, each with one edit that makes it wrong.

    Where the traces are of other problems than the run's, the run's test data is dealt out instead.
    """
    rng = random.Random(f"planted {seed}")
    max_value = dataset.max_value if dataset.name == DatasetName.arithmetic else None
    found = []
    for split, records in _experts(dataset, traces, n).items():
        for record in records:
            edits = sample_perturbations(record.target, record.question, kinds, 1, rng, max_value=max_value)
            for edit in edits:
                ids, spans = encode_completion(tokenizer, edit.text, max_completion_length)
                steps = step_spans(edit.text)
                of_tokens = step_ids(edit.text, spans, steps)
                if edit.step in of_tokens:  # not cut off
                    sequence = TokenSequence(encode_prompt(tokenizer, record.prompt), ids)
                    found.append(LabelledError(record.id, split, sequence, of_tokens, len(steps), edit.step))
    return found


def _experts(dataset: DatasetConfig, traces: Sequence[Trace], n: int) -> dict[str, list[Record]]:
    _, records = load_test(dataset, 0, None)
    by_split = {split: {trace.problem for trace in traces if trace.split == split} for split in (TEST, VALIDATION)}
    chosen = {split: [r for r in records if r.id in ids][:n] for split, ids in by_split.items()}
    if any(chosen.values()):
        return chosen
    n = min(n, len(records) // 2)
    return {TEST: records[:n], VALIDATION: records[n : 2 * n]}


def hits(errors: Sequence[LabelledError], token_values: Sequence[Sequence[float]], how: str) -> list[float]:
    """For each error, the chance that the lowest step is the labelled one."""
    return [
        first_error_hit(step_scores(values, error.step_ids, how, error.n_steps), error.step)
        for error, values in zip(errors, token_values, strict=True)
    ]


def choose_step_score(errors: Sequence[LabelledError], token_values: Sequence[Sequence[float]]) -> tuple[str, str]:
    """(step score, what it was chosen by), from the errors of the validation split."""
    at = [i for i, error in enumerate(errors) if error.split == VALIDATION]
    if not at:
        return STEP_CHOICES[0], "default: no errors in the validation split"
    of_validation, values = [errors[i] for i in at], [token_values[i] for i in at]
    means = {how: sum(hits(of_validation, values, how)) / len(at) for how in STEP_CHOICES}
    return max(means, key=lambda how: means[how]), "first_error_hit@1 on validation"


def report_hits(
    summary: Summary,
    kind: str,
    errors: Sequence[LabelledError],
    token_values: dict[str, list[list[float]] | None],
    note: str,
) -> None:
    """first_error_hit@1 of each method on the test split, beside a random step, the first and the last one.

    `note` says why there may be no errors.
    """
    test = [i for i, error in enumerate(errors) if error.split == TEST]
    of_test = [errors[i] for i in test]
    summary.metrics[f"n_{kind}"] = len(test)
    for method, values in token_values.items():
        name = f"{method}/first_error_hit@1/{kind}"
        if values is None:
            summary.missing(name, "not scored: this run has no such model")
            continue
        how, why = choose_step_score(errors, values)
        summary.metrics[f"choice/{method}/step_score/{kind}"] = how
        summary.metrics[f"choice/{method}/step_score/{kind}/by"] = why
        _report(summary, name, of_test, hits(of_test, [values[i] for i in test], how), note)
    chance = [chance_hit(error.n_steps) for error in of_test]
    _report(summary, f"chance/first_error_hit@1/{kind}", of_test, chance, note)
    # What a rule that reads no text would reach: a reward that only knows positions does no better.
    for rule, guess in (("first_step", lambda _: 1), ("last_step", lambda error: error.n_steps)):
        guessed = [float(error.step == guess(error)) for error in of_test]
        _report(summary, f"{rule}/first_error_hit@1/{kind}", of_test, guessed, note)


def _report(summary: Summary, name: str, errors: Sequence[LabelledError], values: Sequence[float], note: str) -> None:
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for error, value in zip(errors, values, strict=True):
        sums[error.problem] = sums.get(error.problem, 0.0) + value
        counts[error.problem] = counts.get(error.problem, 0.0) + 1
    summary.ratio(name, list(sums.values()), list(counts.values()), note)
