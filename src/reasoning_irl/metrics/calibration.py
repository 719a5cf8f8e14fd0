"""Maps trace scores to probabilities of being right (Platt scaling) and measures their calibration.

The map is a logistic curve of the score (Platt 1999), fitted on the validation split; calibration errors are measured
on the test split with the curve fixed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.metrics.traces import Floats, checked_flags, checked_numbers

N_BINS = 10
BINS = ("equal_mass", "equal_width")  # the first is the default


@dataclass(frozen=True)
class Platt:
    """p = sigmoid(slope * score + intercept)."""

    slope: float
    intercept: float

    def log_probabilities(self, scores: ArrayLike) -> Floats:
        return -np.logaddexp(0.0, -(self.slope * np.asarray(scores, dtype=np.float64) + self.intercept))

    def probabilities(self, scores: ArrayLike) -> Floats:
        """(N,) probability in (0, 1) of being right."""
        return np.exp(self.log_probabilities(scores))


def fit_platt(scores: ArrayLike, labels: ArrayLike, steps: int = 100) -> Platt | None:
    """Fits the maximum-likelihood logistic curve to `scores` (N,) and `labels` (N,); None if a class is missing.

    Newton's method with step halving (Lin, Lin and Weng 2007, algorithm 1) on Platt's targets, (n+ + 1) / (n+ + 2) for
    positives and 1 / (n- + 2) for negatives, which keep the curve finite if the score separates the classes. A constant
    score yields a slope of 0 and a probability of about the share of positives.
    """
    values = checked_numbers(scores, "scores", finite=True)
    positive = checked_flags(labels, values.size, "labels")
    n_positive = int(positive.sum())
    n_negative = values.size - n_positive
    if not n_positive or not n_negative:
        return None
    targets = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    shift, scale = float(values.mean()), float(np.ptp(values)) or 1.0
    x = np.stack([(values - shift) / scale, np.ones(values.size)], axis=1)  # (N, 2), well scaled for Newton

    def loss(theta: Floats) -> float:
        z = x @ theta
        return float((np.logaddexp(0.0, z) - targets * z).sum())

    theta = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(x @ theta, -500, 500)))
        gradient = x.T @ (p - targets)
        if np.abs(gradient).max() < 1e-9 * values.size:
            break
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(2)  # a constant score has no curvature
        direction, size, now = np.linalg.solve(hessian, gradient), 1.0, loss(theta)
        while size > 1e-10 and loss(theta - size * direction) > now - 1e-4 * size * float(gradient @ direction):
            size /= 2
        if size <= 1e-10:  # no further decrease in floating point: this is the minimum
            break
        theta = theta - size * direction
    slope = float(theta[0] / scale)
    return Platt(slope, float(theta[1] - slope * shift))


def bin_of(probabilities: ArrayLike, how: str = BINS[0], n_bins: int = N_BINS) -> NDArray[np.int64]:
    """The bin index (N,), from 0, of each probability (N,).

    "equal_width": [0, 1/n), ..., with the last bin closed (Guo et al. 2017). "equal_mass": by rank, so that bins have
    about the same size (Nguyen and O'Connor 2015); equal probabilities share the bin of their middle rank, so order
    does not matter and a bin may be empty.
    """
    p = checked_numbers(probabilities, "probabilities", finite=True)
    if p.size and (p.min() < 0 or p.max() > 1):
        raise ValueError("probabilities must be in 0..1")
    if how == "equal_width":
        return np.searchsorted(np.arange(1, n_bins) / n_bins, p, side="right").astype(np.int64)
    if how != "equal_mass":
        raise ValueError(f"unknown bins {how!r}: {' or '.join(BINS)}")
    _, group, sizes = np.unique(p, return_inverse=True, return_counts=True)
    twice_middle = 2 * np.cumsum(sizes) - sizes  # integers: a middle rank on a bin edge is exact
    return (twice_middle[group] * n_bins // (2 * p.size)).astype(np.int64)


def ece(probabilities: ArrayLike, labels: ArrayLike, how: str = BINS[0], n_bins: int = N_BINS) -> float | None:
    """Expected calibration error: sum over bins of n_b / N |share right - mean probability| (Guo et al. 2017, eq. 3).

    None without items. Biased upwards by about sqrt(bins / N), even for perfect probabilities.
    """
    p = checked_numbers(probabilities, "probabilities", finite=True)
    right = checked_flags(labels, p.size, "labels")
    if not p.size:
        return None
    return float(np.abs(np.bincount(bin_of(p, how, n_bins), weights=right - p, minlength=n_bins)).sum() / p.size)


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float | None:
    """Mean squared error of the probability against 1 for right and 0 for wrong (Brier 1950, two classes, halved)."""
    p = checked_numbers(probabilities, "probabilities", finite=True)
    right = checked_flags(labels, p.size, "labels")
    return float(np.mean((p - right) ** 2)) if p.size else None


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, how: str = BINS[0], n_bins: int = N_BINS
) -> list[tuple[float, float, int]]:
    """Points of the reliability diagram: mean probability, share right and count of each non-empty bin."""
    p = checked_numbers(probabilities, "probabilities", finite=True)
    right = checked_flags(labels, p.size, "labels")
    bins = bin_of(p, how, n_bins)
    held = [np.flatnonzero(bins == b) for b in range(n_bins)]
    return [(float(p[at].mean()), float(right[at].mean()), at.size) for at in held if at.size]
