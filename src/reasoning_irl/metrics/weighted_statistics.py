"""Statistics of N items under many weightings at once: one pass over sorted scores serves a whole bootstrap.

A resample of problems is represented by how often it contains each item. W: weightings; `weights` (W, N) are the
counts, and every statistic is (W,), NaN if it is undefined for a weighting (one class only, a constant). With all
weights 1 it is the plain statistic. Tied scores are one threshold, so the order of items does not matter.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where `bottom` is 0; shapes broadcast as in numpy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom == 0, np.nan, top / bottom)


def _by_score(scores: Floats, weights: Floats) -> Floats:
    """(W, G) total weight of each group of equal scores, lowest first."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.add.reduceat(weights[:, order], starts, axis=1)


def auroc(scores: Floats, labels: Bools, weights: Floats) -> Floats:
    """Probability that a positive scores above a negative, ties counting half: Mann-Whitney U / number of pairs."""
    if not scores.size:
        return np.full(len(weights), np.nan)
    positive = _by_score(scores, weights * labels)
    negative = _by_score(scores, weights * ~labels)
    below = np.cumsum(negative, axis=1) - negative / 2
    return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def average_precision(scores: Floats, labels: Bools, weights: Floats) -> Floats:
    """Area under precision and recall as the sum of (R_n - R_(n-1)) P_n over the distinct scores, highest first.

    NaN unless both classes are present: without negatives it would be 1 for any scores.
    """
    if not scores.size:
        return np.full(len(weights), np.nan)
    positive = _by_score(-scores, weights * labels)
    both = positive + _by_score(-scores, weights * ~labels)
    n_positive = positive.sum(axis=1)
    seen = np.cumsum(both, axis=1)
    precision = np.cumsum(positive, axis=1) / np.maximum(seen, 1e-300)  # nothing seen yet: no recall step either
    area = ratio((positive * precision).sum(axis=1), n_positive)
    return np.where(n_positive == both.sum(axis=1), np.nan, area)


def _spread(values: Floats) -> Floats:
    """Centres and scales values so that squares neither overflow nor underflow; a constant becomes exact zeros."""
    if values.size == 0 or np.ptp(values) == 0:
        return np.zeros_like(values)
    centred = values - values.mean()
    return centred / np.abs(centred).max()


def _covariances(columns: list[Floats], weights: Floats) -> Floats:
    """(W, K, K) covariances of K columns (N,)."""
    x = np.stack([_spread(column) for column in columns], axis=1)  # (N, K)
    total = weights.sum(axis=1)
    means = (weights @ x) / total[:, None]
    products = np.einsum("nj,nk->njk", x, x).reshape(len(x), -1)
    second = (weights @ products / total[:, None]).reshape(len(weights), x.shape[1], x.shape[1])
    covariances: Floats = second - means[:, :, None] * means[:, None, :]
    # The variance of a column that is constant under a weighting is only rounding error: set it to 0.
    return np.where(np.abs(covariances) < 1e-13, 0.0, covariances)


def correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's r of two columns (N,)."""
    c = _covariances([x, y], weights)
    return np.clip(ratio(c[:, 0, 1], np.sqrt(c[:, 0, 0] * c[:, 1, 1])), -1.0, 1.0)


def mid_ranks(values: Floats, weights: Floats) -> Floats:
    """(W, N) rank of each item among the weighted items; equal values share the middle of their ranks."""
    _, group = np.unique(values, return_inverse=True)
    in_group = _by_score(values, weights)
    return (np.cumsum(in_group, axis=1) - in_group / 2)[:, group]


def rank_correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman's rho: Pearson's r of the mid-ranks, computed within each resample."""
    total = weights.sum(axis=1, keepdims=True)
    a, b = (mid_ranks(values, weights) / total - 0.5 for values in (x, y))  # a weighted mid-rank has mean 1/2
    share = weights / total
    covariance, of_a, of_b = ((share * u * v).sum(axis=1) for u, v in ((a, b), (a, a), (b, b)))
    small = (of_a < 1e-13) | (of_b < 1e-13)
    return np.where(small, np.nan, np.clip(ratio(covariance, np.sqrt(of_a * of_b)), -1.0, 1.0))


def partial_correlation(x: Floats, y: Floats, controls: list[Floats], weights: Floats) -> Floats:
    """Correlation of the residuals of x and y (N,) after linear fits on the controls (N,).

    From the covariances S: S_xy - S_xc S_cc^+ S_cy, and the same for the variances. The pseudo-inverse drops controls
    that are constant or repeat another. NaN if the fit explains x or y completely.
    """
    c = _covariances([x, y, *controls], weights)
    inverse = np.linalg.pinv(c[:, 2:, 2:], rcond=1e-10, hermitian=True)
    left = c[:, :2, :2] - c[:, :2, 2:] @ inverse @ c[:, 2:, :2]
    before = np.diagonal(c[:, :2, :2], axis1=1, axis2=2)
    variances = np.diagonal(left, axis1=1, axis2=2)
    explained = (variances <= 1e-9 * before).any(axis=1)
    r = ratio(left[:, 0, 1], np.sqrt(np.where(explained, 0.0, variances[:, 0] * variances[:, 1])))
    return np.clip(r, -1.0, 1.0)
