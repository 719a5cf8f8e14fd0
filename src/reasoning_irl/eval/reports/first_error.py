"""Does the lowest step score point at the first wrong step? Planted errors and natural ones, apart."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import DatasetConfig, DatasetName, PerturbationKind
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Trace
from reasoning_irl.metrics.first_error import (
    POSITIONS,
    average_precision_of_step,
    chance_average_precision,
    chance_hit,
    choose_threshold,
    first_error_hit,
    harmonic_mean,
    judgements,
    position_of,
    token_auroc,
)
from reasoning_irl.metrics.summary import Statistic, Summary, ratio_of
from reasoning_irl.metrics.traces import Floats, TokenValues, step_scores
from reasoning_irl.text.token_spans import step_ids
from reasoning_irl.text.trace import step_spans

STEP_CHOICES = ("mean", "min", "drop")
HIT, HIT_3, MAP, TOKEN_AUROC = "first_error_hit@1", "first_error_hit@3", "first_error_map", "first_error_token_auroc"
ACCURACY, SOUND_ACCURACY, F1 = "first_error_accuracy", "sound_accuracy", "processbench_f1"
METRICS = (HIT, HIT_3, MAP, TOKEN_AUROC, ACCURACY, SOUND_ACCURACY, F1)
BY_GROUP = (HIT, MAP, TOKEN_AUROC)  # these are also reported by kind and by position
COMPARED = (HIT, MAP, TOKEN_AUROC, F1)
NOT_SCORED = "not scored: this run has no such model"
NO_THRESHOLD = "undefined: the validation split lacks traces with a known wrong step, or traces without one"
NOTHING: Mapping[str, str] = MappingProxyType({})
NO_SUCH_ERROR = "undefined: no test error of this kind or position"


@dataclass(frozen=True)
class SteppedTrace:
    """A trace without a wrong step; `step_ids` (T,) name the step of each token."""

    problem: str
    split: str
    sequence: TokenSequence
    step_ids: list[int]
    n_steps: int


AnyTrace = TypeVar("AnyTrace", bound=SteppedTrace)


@dataclass(frozen=True)
class LabelledError(SteppedTrace):
    """A trace whose first wrong step (from 1) is known."""

    step: int
    kind: PerturbationKind | None = None  # of the planted edit
    edited: tuple[int, ...] | None = None  # places of the tokens that show the edit
    question: str = ""  # of a planted edit

    @property
    def wrong(self) -> list[bool]:
        """(T,) the tokens of the planted edit, where that is known; else those of the wrong step."""
        return [
            i in self.edited if self.edited is not None else step == self.step for i, step in enumerate(self.step_ids)
        ]


@dataclass
class Source:
    """Traces from one place: those with a wrong step, and those without one."""

    errors: list[LabelledError] = field(default_factory=list)
    sound: list[SteppedTrace] = field(default_factory=list)


def natural_errors(traces: Sequence[Trace]) -> tuple[Source, list[int], list[int], int]:
    """Errors that a policy made and right traces, the places of both among `traces`; and test errors left out.

    Left out are labels of a step that no token shows, such as a missing step or a trace that was cut off. A trace with
    a wrong answer and no labelled step is in neither list: where it goes wrong is not known. A trace is right here if
    its label says that no step is wrong (`sound`), and only where nothing is said of its steps, if its answer is.
    """
    source, of_errors, of_sound, left_out = Source(), [], [], 0
    for place, trace in enumerate(traces):
        step = trace.row.get("first_error_step")
        shared = (trace.problem, trace.split, trace.sequence, trace.step_ids, trace.n_steps)
        if step is None and trace.row.get("sound", trace.correct):
            source.sound.append(SteppedTrace(*shared))
            of_sound.append(place)
        elif step is not None and step in trace.step_ids:
            source.errors.append(LabelledError(*shared, step))
            of_errors.append(place)
        elif step is not None:
            left_out += trace.split == TEST
    return source, of_errors, of_sound, left_out


def planted_errors(
    dataset: DatasetConfig,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    kinds: Sequence[PerturbationKind],
    n: int,
    max_completion_length: int,
    seed: int,
) -> Source:
    """Up to n experts of the test problems and n of the validation ones, each whole and with one edit that is wrong.

    Where the traces are of other problems than the run's, the run's test data is dealt out instead.
    """
    rng = random.Random(f"planted {seed}")
    max_value = dataset.max_value if dataset.name == DatasetName.arithmetic else None
    found = Source()
    for split, records in _experts(dataset, traces, n).items():
        for record in records:
            prompt = encode_prompt(tokenizer, record.prompt)
            edits = sample_perturbations(record.target, record.question, kinds, 1, rng, max_value=max_value)
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


def scores_of(traces: Sequence[SteppedTrace], token_values: TokenValues, how: str) -> list[Floats]:
    """The step scores (S,) of each trace."""
    pairs = zip(traces, token_values, strict=True)
    return [step_scores(values, trace.step_ids, how, trace.n_steps) for trace, values in pairs]


def hits(errors: Sequence[LabelledError], token_values: TokenValues, how: str) -> list[float]:
    """For each error, the chance that the lowest step is the labelled one."""
    scored = scores_of(errors, token_values, how)
    return [first_error_hit(scores, error.step) for error, scores in zip(errors, scored, strict=True)]


def choose_step_score(errors: Sequence[LabelledError], token_values: TokenValues) -> tuple[str, str]:
    """(step score, what it was chosen by), from the errors of the validation split."""
    at = [i for i, error in enumerate(errors) if error.split == VALIDATION]
    if not at:
        return STEP_CHOICES[0], "default: no errors in the validation split"
    of_validation, values = [errors[i] for i in at], [token_values[i] for i in at]
    means = {how: float(np.mean(hits(of_validation, values, how))) for how in STEP_CHOICES}
    return max(means, key=lambda how: means[how]), "first_error_hit@1 on validation"


def report_localisation(
    summary: Summary,
    name: str,
    source: Source,
    values: Mapping[str, tuple[TokenValues, TokenValues] | None],
    note: str,
    not_scored: Mapping[str, str] = NOTHING,
) -> None:
    """Each method on the test split of a source, beside chance and rules that read no text; by kind and position too.

    `values` are the token values of `source.errors` and of `source.sound`; `note` says why there may be no errors,
    `not_scored` why a method has no values, where that is not for want of a model.
    """
    errors, sound = _of_split(source.errors, TEST), _of_split(source.sound, TEST)
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(e.problem for e in [*errors, *sound]))}
    of_errors = np.array([numbers[e.problem] for e in errors], dtype=np.int64)
    of_sound = np.array([numbers[e.problem] for e in sound], dtype=np.int64)
    groups = _groups(errors)
    summary.metrics |= {f"n_{name}": len(errors), f"n_{name}_sound": len(sound)}
    summary.metrics |= {f"n_{name}/{group}": int(chosen.sum()) for group, chosen in groups.items()}

    measured: dict[str, dict[str, Floats] | None] = {
        method: None if known is None else _measure(summary, f"{method}/step_score/{name}", source, known)
        for method, known in values.items()
    }
    measured |= {"chance": _chance(errors, sound)}
    # What rules that read no text would reach: a score that only knows positions does no better.
    measured |= {
        "first_step": {HIT: np.array([float(e.step == 1) for e in errors])},
        "last_step": {HIT: np.array([float(e.step == e.n_steps) for e in errors])},
    }
    statistics: dict[str, dict[str, Statistic]] = {}
    for method, per_trace in measured.items():
        known_metrics = {} if per_trace is None else per_trace
        found = {
            metric: _mean_over(of_trace, of_sound if metric == SOUND_ACCURACY else of_errors, len(numbers))
            for metric, of_trace in known_metrics.items()
        }
        if ACCURACY in found:
            found[F1] = _f1_of(found[ACCURACY], found[SOUND_ACCURACY])
        statistics[method] = found
        for metric in METRICS if method in values else found:
            key = f"{method}/{metric}/{name}"
            if metric in found:
                summary.statistic(key, found[metric], len(numbers), note)
            else:
                of_method = not_scored.get(method, NOT_SCORED) if per_trace is None else NO_THRESHOLD
                summary.missing(key, of_method if errors or per_trace is None else note)
        for group, chosen in groups.items():
            for metric in BY_GROUP:
                if metric in known_metrics:
                    of_group = np.where(chosen, known_metrics[metric], np.nan)
                    statistic = _mean_over(of_group, of_errors, len(numbers))
                    summary.statistic(f"{method}/{metric}/{name}/{group}", statistic, len(numbers), NO_SUCH_ERROR)
    for other in (method for method in measured if method != "reward"):
        for metric in COMPARED:
            a, b = statistics["reward"].get(metric), statistics[other].get(metric)
            if a is not None and b is not None:
                summary.difference(f"reward_minus_{other}/{metric}/{name}", a, b, len(numbers), note)


def _measure(
    summary: Summary, choice: str, source: Source, values: tuple[TokenValues, TokenValues]
) -> dict[str, Floats]:
    """Each metric of each test error (E,), and of each sound test trace; how steps are read is chosen on validation."""
    of_errors, of_sound = values
    how, why = choose_step_score(source.errors, of_errors)
    scored, scored_sound = scores_of(source.errors, of_errors, how), scores_of(source.sound, of_sound, how)
    summary.metrics |= {f"choice/{choice}": how, f"choice/{choice}/by": why}
    test = [at for at, error in enumerate(source.errors) if error.split == TEST]
    labelled = [(source.errors[at], scored[at]) for at in test]
    areas = [token_auroc(of_errors[at], source.errors[at].wrong) for at in test]
    found: dict[str, ArrayLike] = {
        HIT: [first_error_hit(scores, error.step) for error, scores in labelled],
        HIT_3: [first_error_hit(scores, error.step, 3) for error, scores in labelled],
        MAP: [average_precision_of_step(scores, error.step) for error, scores in labelled],
        TOKEN_AUROC: [np.nan if area is None else area for area in areas],
    }
    judged = {
        split: (
            judgements(*_paired(source.errors, scored, [error.step for error in source.errors], split)),
            judgements(*_paired(source.sound, scored_sound, [None] * len(source.sound), split)),
        )
        for split in (VALIDATION, TEST)
    }
    threshold = choose_threshold(*judged[VALIDATION])
    if threshold is not None:
        summary.metrics[f"choice/{choice}/threshold"] = threshold
        found[ACCURACY], found[SOUND_ACCURACY] = (of_kind.right(threshold) for of_kind in judged[TEST])
    return {metric: np.asarray(of_trace, dtype=np.float64) for metric, of_trace in found.items()}


def _paired(
    traces: Sequence[SteppedTrace], scores: Sequence[Floats], labels: Sequence[int | None], split: str
) -> tuple[list[Floats], list[int | None]]:
    at = [i for i, trace in enumerate(traces) if trace.split == split]
    return [scores[i] for i in at], [labels[i] for i in at]


def _of_split(traces: Sequence[AnyTrace], split: str) -> list[AnyTrace]:
    return [trace for trace in traces if trace.split == split]


def _chance(errors: Sequence[LabelledError], sound: Sequence[SteppedTrace]) -> dict[str, Floats]:
    """What a random order of steps would reach, and a random pick among the steps and "no error"."""
    by_steps = {
        HIT: lambda n: chance_hit(n),
        HIT_3: lambda n: chance_hit(n, 3),
        MAP: chance_average_precision,
        TOKEN_AUROC: lambda _: 0.5,
        ACCURACY: lambda n: 1 / (n + 1),
    }
    found = {metric: np.array([of(error.n_steps) for error in errors]) for metric, of in by_steps.items()}
    return found | {SOUND_ACCURACY: np.array([1 / (trace.n_steps + 1) for trace in sound])}


def _groups(errors: Sequence[LabelledError]) -> dict[str, NDArray[np.bool_]]:
    """(E,) masks of the errors of each kind, where kinds are known, and of each third of the trace."""
    kinds = dict.fromkeys(error.kind for error in errors if error.kind is not None)
    groups = {str(kind): np.array([error.kind == kind for error in errors]) for kind in sorted(kinds)}
    places = [position_of(error.step, error.n_steps) for error in errors]
    return groups | {position: np.array([place == position for place in places], bool) for position in POSITIONS}


def _mean_over(of_trace: Floats, problem_of: NDArray[np.int64], n_problems: int) -> Statistic:
    """The mean over traces (N,), NaN left out."""
    known = ~np.isnan(of_trace)
    sums = np.bincount(problem_of[known], weights=of_trace[known], minlength=n_problems)
    return ratio_of(sums, np.bincount(problem_of[known], minlength=n_problems))


def _f1_of(on_errors: Statistic, on_sound: Statistic) -> Statistic:
    return lambda weights: harmonic_mean(on_errors(weights), on_sound(weights))
