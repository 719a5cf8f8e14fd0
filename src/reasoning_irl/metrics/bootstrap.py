"""Confidence intervals by percentile bootstrap over problems, because samples of one problem are not independent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.metrics.traces import checked_numbers


def bootstrap_weights(n_problems: int, rng: np.random.Generator, draws: int = 1000) -> NDArray[np.int32]:
    """(draws, P) counts of each problem in each resample of P problems with replacement."""
    if n_problems < 1:
        raise ValueError("no problems to resample")
    weights = np.empty((draws, n_problems), dtype=np.int32)
    for draw in weights:
        draw[:] = np.bincount(rng.integers(n_problems, size=n_problems), minlength=n_problems)
    return weights


def percentiles(statistics: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The interval that contains the middle `level` of the resampled statistics."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    low, high = np.quantile(np.asarray(statistics, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    values_by_problem: ArrayLike, rng: np.random.Generator, draws: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of the mean of `values_by_problem` (P,); its width is 0 for a single problem."""
    values = checked_numbers(values_by_problem, "values")
    return percentiles(bootstrap_weights(values.size, rng, draws) @ values / values.size, level)


def paired_bootstrap(
    values_a: ArrayLike,
    values_b: ArrayLike,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean of a - b with its interval: (difference, low, high). Index p must be the same problem in both."""
    a, b = checked_numbers(values_a, "values_a"), checked_numbers(values_b, "values_b")
    if a.shape != b.shape:
        raise ValueError(f"not paired: {a.size} and {b.size} problems")
    low, high = bootstrap_interval(a - b, rng, draws, level)
    return float((a - b).mean()), low, high


def two_level_bootstrap(
    by_seed: Sequence[ArrayLike], rng: np.random.Generator, draws: int, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high) of a metric with one value per problem, from runs with several seeds.

    Each draw resamples seeds, and problems within each of them, with replacement (Davison and Hinkley 1997,
    section 3.8); with one seed it is the plain bootstrap over problems.
    """
    values = [np.asarray(seed, dtype=np.float64) for seed in by_seed]
    if not values or any(seed.size == 0 for seed in values):
        raise ValueError("every seed needs at least one problem")
    means = np.empty(draws)
    for draw in range(draws):
        chosen = rng.integers(len(values), size=len(values))
        means[draw] = np.mean([values[s][rng.integers(values[s].size, size=values[s].size)].mean() for s in chosen])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([seed.mean() for seed in values])), float(low), float(high)
