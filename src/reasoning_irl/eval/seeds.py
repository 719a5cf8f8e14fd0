"""Means over the seeds of one method, with intervals that count both kinds of chance: which problems, which seed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def two_level_bootstrap(
    by_seed: Sequence[ArrayLike], rng: np.random.Generator, draws: int, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high) of a metric with one value a problem, from runs of several seeds.

    Each draw takes seeds with replacement, and of each of them problems with replacement (Davison and Hinkley 1997,
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
