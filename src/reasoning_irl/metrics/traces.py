"""Metrics of sampled traces and their rewards, as pure functions of arrays.

N: samples of one problem; P: problems; T: tokens of one trace; S: its steps. Unless stated otherwise, metrics are in
0..1 and higher is better. Ties are resolved by expectation, never by position, so the order of samples does not
matter. NaN scores raise ValueError, because they would silently win or lose every comparison.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from math import comb
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.metrics import weighted_statistics as weighted

Floats = NDArray[np.float64]
Values = Sequence[float] | NDArray[np.floating[Any]]
TokenValues = Sequence[Values]  # per trace, one value per token


def checked_numbers(values: ArrayLike, what: str, *, finite: bool = False) -> Floats:
    """Returns a 1-D float64 array. Raises ValueError for other shapes, NaN and, with `finite`, infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} must be one-dimensional, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{what} contain NaN at index {int(np.flatnonzero(np.isnan(array))[0])}")
    if finite and np.isinf(array).any():
        raise ValueError(f"{what} must be finite, but are not at index {int(np.flatnonzero(np.isinf(array))[0])}")
    return array


def checked_flags(values: ArrayLike, length: int, what: str) -> NDArray[np.bool_]:
    """Returns a bool array of the given length; an unknown value (None) is an error, not False."""
    array = np.asarray(values)
    if array.shape != (length,):
        raise ValueError(f"{what} must have shape ({length},), got {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{what} must all be true or false")
    return array.astype(np.bool_)


def _check_subset(n: int, n_samples: int) -> None:
    if not 1 <= n <= n_samples:
        raise ValueError(f"cannot draw {n} of {n_samples} samples")


# Choosing among the samples of one problem


def pass_at_k(n_correct: int, n_samples: int, k: int) -> float:
    """Probability that k samples drawn without replacement include a right one.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv:2107.03374, eq. 1).
    """
    _check_subset(k, n_samples)
    if not 0 <= n_correct <= n_samples:
        raise ValueError(f"{n_correct} right samples of {n_samples}")
    return 1.0 - comb(n_samples - n_correct, k) / comb(n_samples, k)


def oracle_at_n(correct: ArrayLike, n: int) -> float:
    """Accuracy of a perfect reranker of n samples: pass@n of `correct` (N,)."""
    flags = checked_flags(correct, np.size(correct), "correct")
    return pass_at_k(int(flags.sum()), flags.size, n)


def best_of_n(scores: ArrayLike, correct: ArrayLike, n: int) -> float:
    """Accuracy of picking the sample with the highest of n scores, averaged exactly over all size-n subsets.

    `scores` (N,), `correct` (N,). Suppose m samples have the score v, c of them right, and L samples score lower. The
    best score of a subset is v in C(L + m, n) - C(L, n) of the C(N, n) subsets, and by symmetry c / m of the tied
    winners are right. Integer arithmetic keeps this exact for large N.
    """
    values = checked_numbers(scores, "scores")
    flags = checked_flags(correct, values.size, "correct")
    _check_subset(n, values.size)
    _, group = np.unique(values, return_inverse=True)
    below, expected = 0, 0.0
    sizes = np.bincount(group)
    rights = np.bincount(group[flags], minlength=sizes.size)
    for size, right in zip(sizes.tolist(), rights.tolist(), strict=True):
        wins = comb(below + size, n) - comb(below, n)
        expected += wins / comb(values.size, n) * right / size
        below += size
    return expected


def majority_at(keys: Sequence[Hashable | None], correct: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Accuracy of a majority vote of all N samples: the share of right samples among those with the winning answer.

    Each sample has one vote, or `weights` (N,) of at least 0 votes. Answers tied for the lead share the win equally.
    None means that a sample gave no answer; it wins only if no sample gave one.
    """
    if not len(keys):
        raise ValueError("no samples to vote")
    return majority_curve(keys, correct, [len(keys)], np.random.default_rng(0), weights)[0]


def majority_curve(
    keys: Sequence[Hashable | None],
    correct: ArrayLike,
    ns: Sequence[int],
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
    draws: int = 200,
) -> list[float]:
    """Accuracy of a majority vote of n of the N samples, for each n in `ns`; see `majority_at`.

    Uses all C(N, n) subsets if there are at most `draws` of them (usual for n = 1 and n = N); otherwise averages over
    `draws` random subsets, with a standard error of at most 0.5 / sqrt(draws).
    """
    size = len(keys)
    flags = checked_flags(correct, size, "correct")
    votes = np.ones(size) if weights is None else checked_numbers(weights, "weights", finite=True)
    if votes.shape != (size,) or (votes < 0).any():
        raise ValueError(f"weights must be {size} numbers of at least 0")
    codes = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    is_of = np.zeros((size, len(codes)))  # (N, K): sample i gave answer k
    is_of[np.arange(size), [codes[key] for key in keys]] = 1.0
    curve = []
    for n in ns:
        _check_subset(n, size)
        if comb(size, n) <= draws:
            subsets = np.array(list(combinations(range(size), n)))  # (subsets, n)
        else:
            subsets = rng.random((draws, size)).argsort(axis=1)[:, :n]
        held = is_of[subsets]  # (subsets, n, K)
        given = held.sum(axis=1)
        votes_for = np.where(given > 0, np.einsum("snk,sn->sk", held, votes[subsets]), -1.0)
        if None in codes:  # giving no answer beats only answers that no sample gave
            votes_for[:, codes[None]] = np.where(given[:, codes[None]] > 0, -0.5, -1.0)
        most = votes_for.max(axis=1, keepdims=True)
        leads = votes_for >= most - 1e-12 * np.abs(most)  # the same weights summed in another order are a tie
        right = weighted.ratio(np.einsum("snk,sn->sk", held, flags[subsets].astype(np.float64)), given)
        curve.append(float((np.where(leads, right, 0.0).sum(axis=1) / leads.sum(axis=1)).mean()))
    return curve


# Separating right traces from wrong ones


def _one(values: Floats) -> float | None:
    """The only entry of an array (1,), or None if it is NaN."""
    return None if np.isnan(values[0]) else float(values[0])


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Probability that a right trace scores above a wrong one, with ties counting half; None if a class is missing.

    `scores` (N,), `labels` (N,) true for right. Computed as the Mann-Whitney U divided by the number of pairs.
    """
    values = checked_numbers(scores, "scores")
    positive = checked_flags(labels, values.size, "labels")
    return _one(weighted.auroc(values, positive, np.ones((1, values.size))))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """AUPRC of right traces, as a sum over recall steps with equal scores as one threshold; None for one class only.

    Its chance level is the share of right traces (Davis and Goadrich 2006, sec. 2).
    """
    values = checked_numbers(scores, "scores")
    positive = checked_flags(labels, values.size, "labels")
    return _one(weighted.average_precision(values, positive, np.ones((1, values.size))))


def auroc_within_prompt(scores: ArrayLike, labels: ArrayLike, prompt_ids: Sequence[Hashable]) -> float | None:
    """AUROC over pairs from the same problem: what matters for reranking, regardless of how hard a problem is.

    Problems are weighted by their number of (right, wrong) pairs; None if no problem has such a pair.
    """
    values = checked_numbers(scores, "scores")
    positive = checked_flags(labels, values.size, "labels")
    if len(prompt_ids) != values.size:
        raise ValueError(f"{len(prompt_ids)} prompt ids for {values.size} scores")
    members: dict[Hashable, list[int]] = {}
    for index, prompt_id in enumerate(prompt_ids):
        members.setdefault(prompt_id, []).append(index)
    won, n_pairs = 0.0, 0
    for indices in members.values():
        area = auroc(values[indices], positive[indices])
        if area is not None:
            n_right = int(positive[indices].sum())
            pairs = n_right * (len(indices) - n_right)
            won, n_pairs = won + area * pairs, n_pairs + pairs
    return won / n_pairs if n_pairs else None


def _columns(*columns: ArrayLike) -> list[Floats]:
    found = [checked_numbers(column, "columns", finite=True) for column in columns]
    if len({column.size for column in found}) > 1:
        raise ValueError(f"columns of different lengths: {[column.size for column in found]}")
    return found


def pearson(x: ArrayLike, y: ArrayLike) -> float | None:
    """Linear correlation in [-1, 1] of two (N,) arrays; None if either is constant or N < 2."""
    a, b = _columns(x, y)
    return _one(weighted.correlation(a, b, np.ones((1, a.size)))) if a.size else None


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Correlation of the mid-ranks of two (N,) arrays; None if either is constant or N < 2."""
    a, b = _columns(x, y)
    return _one(weighted.rank_correlation(a, b, np.ones((1, a.size)))) if a.size else None


def partial_correlation(x: ArrayLike, y: ArrayLike, controls: Sequence[ArrayLike]) -> float | None:
    """Correlation of x and y (N,) after regressing the controls (N,) out of both.

    None if the controls explain either of them completely.
    """
    a, b, *given = _columns(x, y, *controls)
    return _one(weighted.partial_correlation(a, b, given, np.ones((1, a.size)))) if a.size else None


# Rewards of tokens, steps and traces


def _step_ids(step_ids: ArrayLike, n_tokens: int) -> NDArray[np.int64]:
    ids = np.asarray(step_ids)
    if ids.shape != (n_tokens,):
        raise ValueError(f"step_ids must have shape ({n_tokens},), got {ids.shape}")
    if n_tokens and (not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0):
        raise ValueError("step_ids must be integers of at least 0")
    return ids.astype(np.int64)


def step_scores(token_rewards: ArrayLike, step_ids: ArrayLike, how: str = "mean", n_steps: int | None = None) -> Floats:
    """Scores (S,) of the steps of a trace; the lowest is the most suspect.

    `token_rewards` (T,); `step_ids` (T,) is each token's step from 1, or 0 for a token outside all steps. `how` is the
    "mean" or "min" over the step's tokens, or "drop", the step's mean minus that of the previous step with tokens (for
    the first step, minus the mean over the whole trace). A step without tokens scores +inf: there is no evidence
    against it. `n_steps` sets S if the last steps may lack tokens (a truncated trace); by default, S is the largest id.
    """
    rewards = checked_numbers(token_rewards, "token rewards")
    ids = _step_ids(step_ids, rewards.size)
    largest = int(ids.max(initial=0))
    count = largest if n_steps is None else n_steps
    if count < largest:
        raise ValueError(f"step id {largest} in a trace of {count} steps")
    if how not in ("mean", "min", "drop"):
        raise ValueError(f"unknown step score {how!r}: mean, min or drop")
    scores = np.full(count, np.inf)
    inside = ids > 0
    places, of_steps = ids[inside] - 1, rewards[inside]
    if how == "min":
        np.minimum.at(scores, places, of_steps)
        return scores
    sizes = np.bincount(places, minlength=count)
    shown = sizes > 0
    means = np.bincount(places, weights=of_steps, minlength=count)[shown] / sizes[shown]
    scores[shown] = means if how == "mean" else np.diff(means, prepend=rewards.mean() if rewards.size else 0.0)
    return scores


class Aggregation(Protocol):
    """Reduces token rewards (T,) to a trace score; some aggregations also need step ids (T,)."""

    def __call__(self, token_rewards: ArrayLike, step_ids: ArrayLike | None = None, /) -> float: ...


def _over_tokens(reduce: Callable[[Floats], np.float64]) -> Aggregation:
    def aggregate(token_rewards: ArrayLike, step_ids: ArrayLike | None = None, /) -> float:  # noqa: ARG001
        rewards = checked_numbers(token_rewards, "token rewards")
        if rewards.size == 0:
            raise ValueError("a trace with no tokens has no score")
        return float(reduce(rewards))

    return aggregate


_mean_over_tokens = _over_tokens(np.mean)


def _step_min(token_rewards: ArrayLike, step_ids: ArrayLike | None = None, /) -> float:
    """The lowest step mean: a chain is as good as its weakest step. The mean over tokens if there are no steps."""
    if step_ids is None:
        raise ValueError("step_min needs the step of each token")
    scores = step_scores(token_rewards, step_ids, "mean")
    return float(scores.min()) if scores.size else _mean_over_tokens(token_rewards)


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": _mean_over_tokens,
    "min": _over_tokens(np.min),
    "last": _over_tokens(lambda rewards: rewards[-1]),
    "sum": _over_tokens(np.sum),
    "step_min": _step_min,
}
