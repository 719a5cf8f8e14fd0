"""How well the score of a whole trace tells right traces from wrong ones, and what else it correlates with."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.eval.scoring.methods import BASELINES, BY_NAME, REWARD, difference
from reasoning_irl.eval.traces.labelled import Labelled
from reasoning_irl.metrics import weighted_statistics as weighted
from reasoning_irl.metrics.calibration import BINS, N_BINS, Platt, bin_of, fit_platt
from reasoning_irl.metrics.summary import Statistic, Summary, ratio_of
from reasoning_irl.metrics.traces import Floats, TokenValues, auroc
from reasoning_irl.text.trace import is_well_formed

N_PARTS = 10  # of a trace, for the mean reward by position
ONE_CLASS = "undefined: the traces are all right or all wrong"
NO_PAIRS = "undefined: no problem has both a right and a wrong trace"
NO_CALIBRATION = "undefined: no calibration, the validation traces are all right or all wrong"
CONSTANT = "undefined: one of the two is constant, or the controls explain all of it"
UNDEFINED = {"auroc": ONE_CLASS, "auprc": ONE_CLASS, "auroc_within_prompt": NO_PAIRS}
CALIBRATED = ("ece", "ece_equal_width", "brier")
COMPARED = ("auroc", "auroc_within_prompt", "auprc", "ece", "brier")
LOWER_IS_BETTER = CALIBRATED


def calibrate(
    summary: Summary, of_test: Mapping[str, Floats | None], of_validation: Mapping[str, Floats | None], data: Labelled
) -> dict[str, Floats | None]:
    """Probabilities (N,) that the test traces are right, by method; None if there is no calibration.

    A logistic curve is fitted to `data`, the validation split, separately for each method.
    """
    found: dict[str, Floats | None] = {}
    for method, scores in of_test.items():
        known = of_validation[method]
        platt: Platt | None = None if known is None else fit_platt(known, data.correct)
        found[method] = None if platt is None or scores is None else platt.probabilities(scores)
        if platt is not None:
            summary.metrics[f"choice/{method}/calibration"] = [platt.slope, platt.intercept]
    summary.metrics["choice/calibration"] = "logistic curve [slope, intercept] on the score, fitted on validation"
    return found


def report_correctness(
    summary: Summary, scores: Mapping[str, Floats | None], probabilities: Mapping[str, Floats | None], data: Labelled
) -> None:
    """Reports every metric of every method on the test traces `data`, and the reward minus each baseline.

    No sign is flipped: a score with an AUROC of 0.4 is reported as worse than chance.
    """
    statistics = {m: _statistics(values, probabilities[m], data) for m, values in scores.items() if values is not None}
    n_problems, n_items = len(data.members), len(data.traces)
    for method in scores:
        for metric in _METRICS:
            name = f"{method}/{metric}"
            if method not in statistics:
                summary.missing(name, BY_NAME[method].not_scored)
            elif metric not in statistics[method]:
                summary.missing(name, NO_CALIBRATION)
            else:
                note = UNDEFINED.get(metric, CONSTANT)
                summary.statistic(name, statistics[method][metric], n_problems, note, n_items)
    for other in BASELINES:
        for metric in COMPARED if other in scores else ():
            name = difference(other, metric)
            a, b = (statistics.get(method, {}).get(metric) for method in (REWARD, other))
            if a is None or b is None:
                summary.missing(name, NO_CALIBRATION if other in statistics else BY_NAME[other].not_scored)
            else:
                lower = metric in LOWER_IS_BETTER
                note = UNDEFINED.get(metric, CONSTANT)
                summary.difference(name, a, b, n_problems, note, n_items=n_items, lower_is_better=lower)


_METRICS = (
    "auroc",
    "auroc_within_prompt",
    "auprc",
    *CALIBRATED,
    "correlation",
    "rank_correlation",
    "partial_correlation",
    "length_correlation",
    "format_correlation",
)


def _statistics(scores: Floats, probabilities: Floats | None, data: Labelled) -> dict[str, Statistic]:
    """Each metric as a function of the weights of the problems."""
    problem_of, right = data.problem_of, data.correct.astype(np.float64)
    well_formed = np.array([_format_ok(trace.row) for trace in data.traces], dtype=np.float64)

    def pooled(of_items: Callable[[Floats], Floats]) -> Statistic:
        return lambda weights: of_items(weights[:, problem_of])

    def by_problem(values: Floats) -> Floats:  # (N, ...) summed to (P, ...)
        sums = np.zeros((len(data.members), *values.shape[1:]))
        np.add.at(sums, problem_of, values)
        return sums

    found: dict[str, Statistic] = {
        "auroc": pooled(lambda w: weighted.auroc(scores, data.correct, w)),
        "auroc_within_prompt": ratio_of(*_pairs_won(scores, data)),
        "auprc": pooled(lambda w: weighted.average_precision(scores, data.correct, w)),
        # Right is 1, wrong is 0.
        "correlation": pooled(lambda w: weighted.correlation(scores, right, w)),
        "rank_correlation": pooled(lambda w: weighted.rank_correlation(scores, right, w)),
        "partial_correlation": pooled(
            lambda w: weighted.partial_correlation(scores, right, [data.lengths, well_formed], w)
        ),
        "length_correlation": pooled(lambda w: weighted.correlation(scores, data.lengths, w)),
        "format_correlation": pooled(lambda w: weighted.correlation(scores, well_formed, w)),
    }
    if probabilities is not None:
        counts = by_problem(np.ones(right.size))
        found["brier"] = ratio_of(by_problem((probabilities - right) ** 2), counts)
        for name, how in zip(("ece", "ece_equal_width"), BINS, strict=True):
            in_bin = np.eye(N_BINS)[bin_of(probabilities, how)]  # (N, bins)
            found[name] = _ece_of(by_problem(in_bin * (right - probabilities)[:, None]), counts)
    return found


def _ece_of(gaps: Floats, counts: Floats) -> Statistic:
    """`gaps` (P, bins): sum of right minus probability. The bins are those of all test traces in every resample."""
    return lambda weights: weighted.ratio(np.abs(weights @ gaps).sum(axis=1), weights @ counts)


def _pairs_won(scores: Floats, data: Labelled) -> tuple[list[float], list[float]]:
    """The (right, wrong) pairs of each problem (P,) that the score orders correctly, and the number of all pairs."""
    won, pairs = [], []
    for group in data.members:
        n_right = int(data.correct[group].sum())
        count = n_right * (len(group) - n_right)
        won.append((auroc(scores[group], data.correct[group]) or 0.0) * count)
        pairs.append(float(count))
    return won, pairs


def _format_ok(row: Mapping[str, object]) -> bool:
    known = row.get("format_ok")
    return known if isinstance(known, bool) else is_well_formed(str(row["completion"]))


def report_reliability(summary: Summary, method: str, probabilities: Floats | None, data: Labelled) -> None:
    """Reports the reliability diagram: lists with one entry per equal-mass bin, null for an empty bin."""
    if probabilities is None:
        return
    bins, problem_of = bin_of(probabilities), data.problem_of
    counts = np.bincount(bins, minlength=N_BINS).astype(np.float64)
    sums_in_bin = np.bincount(bins, weights=probabilities, minlength=N_BINS).astype(np.float64)
    means = weighted.ratio(sums_in_bin, counts)
    name = f"calibration/{method}"
    summary.metrics[f"{name}/bin_count"] = [int(count) for count in counts]
    summary.metrics[f"{name}/bin_confidence"] = [None if np.isnan(mean) else float(mean) for mean in means]
    sums, totals = np.zeros((2, len(data.members), N_BINS))
    np.add.at(sums, (problem_of, bins), data.correct)
    np.add.at(totals, (problem_of, bins), 1.0)
    summary.curve(f"{name}/bin_accuracy", sums, totals)


def report_positions(summary: Summary, method: str, token_values: TokenValues | None, data: Labelled) -> None:
    """Reports the mean value in each tenth of a trace, for right traces and for wrong ones."""
    if token_values is None:
        return
    sums, totals = np.zeros((2, 2, len(data.members), N_PARTS))  # by right or wrong, problem and part
    for values, right, problem in zip(token_values, data.correct, data.problem_of, strict=True):
        part = part_of(len(values))
        count = np.bincount(part, minlength=N_PARTS)
        mean = np.bincount(part, weights=values, minlength=N_PARTS) / np.maximum(count, 1)
        sums[int(right), problem] += mean
        totals[int(right), problem] += count > 0
    for kind, at in (("right", 1), ("wrong", 0)):
        if len(data.members):
            summary.curve(f"position/{method}/{kind}", sums[at], totals[at])


def part_of(n_tokens: int) -> NDArray[np.int64]:
    """(T,) the tenth, counted from 0, that contains the middle of each token, with tokens of equal length."""
    return (2 * np.arange(n_tokens) + 1) * N_PARTS // (2 * n_tokens)
