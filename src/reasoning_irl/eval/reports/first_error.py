"""Does the lowest step score point at the first wrong step? Reported separately for planted and natural errors."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.eval.scoring.methods import BY_NAME, REWARD, difference
from reasoning_irl.eval.traces.labelled_errors import ErrorSet, LabelledError, SteppedTrace
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION
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

STEP_CHOICES = ("mean", "min", "drop")
HIT, HIT_3, MAP, TOKEN_AUROC = "first_error_hit@1", "first_error_hit@3", "first_error_map", "first_error_token_auroc"
ACCURACY, SOUND_ACCURACY, F1 = "first_error_accuracy", "sound_accuracy", "processbench_f1"
METRICS = (HIT, HIT_3, MAP, TOKEN_AUROC, ACCURACY, SOUND_ACCURACY, F1)
BY_GROUP = (HIT, MAP, TOKEN_AUROC)  # also reported by kind of edit and by position
COMPARED = (HIT, MAP, TOKEN_AUROC, F1)
NO_THRESHOLD = "undefined: the validation split lacks traces with a known wrong step, or sound traces"
NOTHING: Mapping[str, str] = MappingProxyType({})
NO_SUCH_ERROR = "undefined: no test error of this kind or position"

# Rules that read no text: a score that only knows positions does no better than these.
STEP_RULES: dict[str, Callable[[LabelledError], bool]] = {
    "first_step": lambda error: error.step == 1,
    "last_step": lambda error: error.step == error.n_steps,
}

AnyTrace = TypeVar("AnyTrace", bound=SteppedTrace)


def scores_of(traces: Sequence[SteppedTrace], token_values: TokenValues, how: str) -> list[Floats]:
    """Step scores (S,) of each trace."""
    pairs = zip(traces, token_values, strict=True)
    return [step_scores(values, trace.step_ids, how, trace.n_steps) for trace, values in pairs]


def hits(errors: Sequence[LabelledError], token_values: TokenValues, how: str) -> list[float]:
    """For each error, the probability that the lowest step is the labelled one (ties in random order)."""
    scored = scores_of(errors, token_values, how)
    return [first_error_hit(scores, error.step) for error, scores in zip(errors, scored, strict=True)]


def choose_step_score(errors: Sequence[LabelledError], token_values: TokenValues) -> tuple[str, str]:
    """(step score, how it was chosen), from the errors of the validation split."""
    at = [i for i, error in enumerate(errors) if error.split == VALIDATION]
    if not at:
        return STEP_CHOICES[0], "default: no errors in the validation split"
    of_validation, values = [errors[i] for i in at], [token_values[i] for i in at]
    means = {how: float(np.mean(hits(of_validation, values, how))) for how in STEP_CHOICES}
    return max(means, key=lambda how: means[how]), "first_error_hit@1 on validation"


def report_first_error(
    summary: Summary,
    name: str,
    data: ErrorSet,
    values: Mapping[str, tuple[TokenValues, TokenValues] | None],
    note: str,
    not_scored: Mapping[str, str] = NOTHING,
) -> None:
    """Reports each method on the test split of one set of errors, with chance and rules that read no text.

    `name` is natural or planted. `values` holds, by method, the token values of `data.errors` and of `data.sound`.
    `note` is the reason to give if there are no errors; `not_scored`, by method, replaces the usual note of a method
    without values.
    """
    errors, sound = _of_split(data.errors, TEST), _of_split(data.sound, TEST)
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(e.problem for e in [*errors, *sound]))}
    of_errors = np.array([numbers[e.problem] for e in errors], dtype=np.int64)
    of_sound = np.array([numbers[e.problem] for e in sound], dtype=np.int64)
    groups = _groups(errors)
    summary.metrics |= {f"n_{name}": len(errors), f"n_{name}_sound": len(sound)}
    summary.metrics |= {f"n_{name}/{group}": int(chosen.sum()) for group, chosen in groups.items()}

    measured: dict[str, dict[str, Floats] | None] = {
        method: None if known is None else _measure(summary, f"{method}/step_score/{name}", data, known)
        for method, known in values.items()
    }
    measured |= {"chance": _chance(errors, sound)}
    measured |= {name: {HIT: np.array([float(is_hit(e)) for e in errors])} for name, is_hit in STEP_RULES.items()}
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
                of_method = not_scored.get(method, BY_NAME[method].not_scored) if per_trace is None else NO_THRESHOLD
                summary.missing(key, of_method if errors or per_trace is None else note)
        for group, chosen in groups.items():
            for metric in BY_GROUP:
                if metric in known_metrics:
                    of_group = np.where(chosen, known_metrics[metric], np.nan)
                    statistic = _mean_over(of_group, of_errors, len(numbers))
                    summary.statistic(f"{method}/{metric}/{name}/{group}", statistic, len(numbers), NO_SUCH_ERROR)
    for other in (method for method in measured if method != REWARD):
        for metric in COMPARED:
            a, b = statistics[REWARD].get(metric), statistics[other].get(metric)
            if a is not None and b is not None:
                summary.difference(difference(other, f"{metric}/{name}"), a, b, len(numbers), note)


def _measure(
    summary: Summary, choice: str, data: ErrorSet, values: tuple[TokenValues, TokenValues]
) -> dict[str, Floats]:
    """Each metric of each test error (E,) or sound test trace; the step score is chosen on validation."""
    of_errors, of_sound = values
    how, why = choose_step_score(data.errors, of_errors)
    scored, scored_sound = scores_of(data.errors, of_errors, how), scores_of(data.sound, of_sound, how)
    summary.metrics |= {f"choice/{choice}": how, f"choice/{choice}/by": why}
    test = [at for at, error in enumerate(data.errors) if error.split == TEST]
    labelled = [(data.errors[at], scored[at]) for at in test]
    areas = [token_auroc(of_errors[at], data.errors[at].wrong) for at in test]
    found: dict[str, ArrayLike] = {
        HIT: [first_error_hit(scores, error.step) for error, scores in labelled],
        HIT_3: [first_error_hit(scores, error.step, 3) for error, scores in labelled],
        MAP: [average_precision_of_step(scores, error.step) for error, scores in labelled],
        TOKEN_AUROC: [np.nan if area is None else area for area in areas],
    }
    judged = {
        split: (
            judgements(*_paired(data.errors, scored, [error.step for error in data.errors], split)),
            judgements(*_paired(data.sound, scored_sound, [None] * len(data.sound), split)),
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
    """The expected metrics of a random order of steps, and of a random pick among the steps and "no error"."""
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
    """Masks (E,) of the errors of each kind of edit, if known, and of each third of the trace."""
    kinds = dict.fromkeys(error.kind for error in errors if error.kind is not None)
    groups = {str(kind): np.array([error.kind == kind for error in errors]) for kind in sorted(kinds)}
    places = [position_of(error.step, error.n_steps) for error in errors]
    return groups | {position: np.array([place == position for place in places], bool) for position in POSITIONS}


def _mean_over(of_trace: Floats, problem_of: NDArray[np.int64], n_problems: int) -> Statistic:
    """Mean over traces (N,), ignoring NaN."""
    known = ~np.isnan(of_trace)
    sums = np.bincount(problem_of[known], weights=of_trace[known], minlength=n_problems)
    return ratio_of(sums, np.bincount(problem_of[known], minlength=n_problems))


def _f1_of(on_errors: Statistic, on_sound: Statistic) -> Statistic:
    return lambda weights: harmonic_mean(on_errors(weights), on_sound(weights))
