"""Metrics of finding the first wrong step from a trace's step scores (S,), where the lowest is the most suspect.

Labelled steps are counted from 1. Ties count by their expectation under random order. `first_error_hit` is Hit@k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reasoning_irl.metrics.traces import Floats, auroc, checked_flags, checked_numbers

POSITIONS = ("early", "middle", "late")


def first_error_hit(step_scores: Sequence[float] | Floats, first_error_step: int, k: int = 1) -> float:
    """Probability that the labelled step (1-based) is among the k lowest of (S,), with ties in random order."""
    values = checked_numbers(step_scores, "step scores")
    if not 1 <= first_error_step <= values.size:
        raise ValueError(f"first error at step {first_error_step} of {values.size}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    labelled = values[first_error_step - 1]
    places_left = k - int((values < labelled).sum())
    return float(np.clip(places_left / int((values == labelled).sum()), 0.0, 1.0))


def chance_hit(n_steps: int, k: int = 1) -> float:
    """Expected `first_error_hit` with the steps in random order."""
    if n_steps < 1 or k < 1:
        raise ValueError(f"k={k} of {n_steps} steps")
    return min(1.0, k / n_steps)


def average_precision_of_step(step_scores: ArrayLike, first_error_step: int) -> float:
    """Average precision with one relevant step, 1 / its rank from the lowest; its mean over traces is MAP (and MRR).

    A tied step has each of the tied ranks equally often.
    """
    values = checked_numbers(step_scores, "step scores")
    if not 1 <= first_error_step <= values.size:
        raise ValueError(f"first error at step {first_error_step} of {values.size}")
    labelled = values[first_error_step - 1]
    before, tied = int((values < labelled).sum()), int((values == labelled).sum())
    return float((1 / np.arange(before + 1, before + tied + 1)).mean())


def chance_average_precision(n_steps: int) -> float:
    """Expected `average_precision_of_step` with the steps in random order: H_S / S."""
    if n_steps < 1:
        raise ValueError(f"{n_steps} steps")
    return float((1 / np.arange(1, n_steps + 1)).mean())


def token_auroc(token_values: ArrayLike, wrong: ArrayLike) -> float | None:
    """Probability that a token of the wrong span has a lower value than another token of the trace; ties count half.

    `token_values` (T,), `wrong` (T,). None if all tokens are wrong, or none are. Chance level is 0.5.
    """
    values = checked_numbers(token_values, "token values")
    return auroc(-values, checked_flags(wrong, values.size, "wrong"))


def position_of(step: int, n_steps: int) -> str:
    """The third of the trace that contains the middle of the step, with all steps counted as equally long."""
    if not 1 <= step <= n_steps:
        raise ValueError(f"step {step} of {n_steps}")
    return POSITIONS[3 * (2 * step - 1) // (2 * n_steps)]


def predicted_first_error(step_scores: ArrayLike, threshold: float) -> int | None:
    """The first step that scores below the threshold, or None if none does (Zheng et al. 2024, arXiv:2412.06559)."""
    below = np.flatnonzero(checked_numbers(step_scores, "step scores") < threshold)
    return int(below[0]) + 1 if below.size else None


@dataclass(frozen=True)
class Judgements:
    """The thresholds at which each trace is judged correctly: low < threshold <= high.

    A trace with a wrong step is judged correctly if that step is the first one below the threshold, a trace without
    one if no step is below it.
    """

    low: Floats  # (N,)
    high: Floats  # (N,)

    def right(self, threshold: float) -> Floats:
        """(N,) 1 if `predicted_first_error` agrees with the label, else 0."""
        return ((self.low < threshold) & (threshold <= self.high)).astype(np.float64)


def judgements(step_scores: Sequence[ArrayLike], labels: Sequence[int | None]) -> Judgements:
    """`step_scores`: N arrays of (S,); `labels`: the first wrong step of each trace, or None if it has none."""
    low, high = [], []
    for scores, label in zip(step_scores, labels, strict=True):
        values = checked_numbers(scores, "step scores")
        if label is not None and not 1 <= label <= values.size:
            raise ValueError(f"first error at step {label} of {values.size}")
        low.append(-np.inf if label is None else values[label - 1])
        high.append((values if label is None else values[: label - 1]).min(initial=np.inf))
    return Judgements(np.array(low, dtype=np.float64), np.array(high, dtype=np.float64))


def harmonic_mean(a: Floats, b: Floats) -> Floats:
    """2 a b / (a + b): 0 if both are 0, NaN if either is NaN; any shape."""
    total = a + b
    return np.where(total == 0, 0.0, 2 * a * b / np.where(total == 0, 1.0, total))


def choose_threshold(erroneous: Judgements, correct: Judgements) -> float | None:
    """The threshold with the best ProcessBench F1, in the middle of its range; None without traces of both kinds.

    F1 is the harmonic mean of the accuracies on traces with and without a wrong step (Zheng et al. 2024,
    arXiv:2412.06559). It is constant between neighbouring scores, so one threshold per gap is tried.
    """
    if not erroneous.low.size or not correct.low.size:
        return None
    ends = np.concatenate([erroneous.low, erroneous.high, correct.high])
    ends = np.unique(ends[np.isfinite(ends)])
    tried = np.concatenate([ends[:1], (ends[:-1] + ends[1:]) / 2, ends[-1:] + 1.0]) if ends.size else np.zeros(1)
    f1 = harmonic_mean(_accuracies(erroneous, tried), _accuracies(correct, tried))
    return float(tried[int(np.argmax(f1))])


def _accuracies(of: Judgements, thresholds: Floats) -> Floats:
    """Share judged correctly at each threshold (C,): the non-empty ranges begun minus those ended."""
    real = of.low < of.high
    begun = np.searchsorted(np.sort(of.low[real]), thresholds, side="left")  # low < threshold
    ended = np.searchsorted(np.sort(of.high[real]), thresholds, side="left")  # high < threshold
    return (begun - ended) / of.low.size
