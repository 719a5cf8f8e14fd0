"""Flat metrics with 95 % bootstrap intervals over problems; undefined metrics are null, with a note that says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.metrics.bootstrap import bootstrap_weights, percentiles
from reasoning_irl.metrics.traces import Floats
from reasoning_irl.metrics.weighted_statistics import ratio
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.reading import read_json
from reasoning_irl.utils.run_folder import write_atomically

Metrics = dict[str, Any]
Statistic = Callable[[Floats], Floats]  # (W, P) how often each problem counts -> (W,), NaN if undefined

# With fewer problems, even a difference of the same sign in all of them is not significant: 2 * 0.5**5 > 0.05.
FEWEST_PROBLEMS = 6
CHUNK = 2**21  # numbers in memory at once while a statistic is resampled


class Summary:
    """Collects metrics as `name`, `name/low`, `name/high` or `name/note`. All metrics share the same resamples."""

    def __init__(self, draws: int, seed: int) -> None:
        self.metrics: Metrics = {}
        self._draws, self._seed = draws, seed
        self._weights: dict[int, NDArray[np.int32]] = {}

    def _estimate(
        self, of_problems: Statistic, n_problems: int, n_items: int = 0
    ) -> tuple[float | None, float | None, float | None]:
        """(value, low, high), None if undefined; resamples in which the statistic is undefined are left out."""
        value = of_problems(np.ones((1, n_problems)))[0] if n_problems else np.nan
        if np.isnan(value):
            return None, None, None
        if n_problems not in self._weights:
            rng = np.random.default_rng(self._seed)
            self._weights[n_problems] = bootstrap_weights(n_problems, rng, self._draws)
        rows, weights = max(1, CHUNK // max(n_items, n_problems)), self._weights[n_problems]
        parts = [of_problems(weights[at : at + rows].astype(np.float64)) for at in range(0, self._draws, rows)]
        resampled = np.concatenate(parts)
        defined = resampled[~np.isnan(resampled)]
        return (float(value), *percentiles(defined)) if defined.size else (float(value), None, None)

    def missing(self, name: str, note: str) -> None:
        self.metrics |= {name: None, f"{name}/low": None, f"{name}/high": None, f"{name}/note": note}

    def statistic(self, name: str, of_problems: Statistic, n_problems: int, note: str, n_items: int = 0) -> None:
        """Adds a statistic over `n_problems` problems with `n_items` items; `note` says why it may be undefined."""
        value, low, high = self._estimate(of_problems, n_problems, n_items)
        if value is None:
            return self.missing(name, note)
        self.metrics |= {name: value, f"{name}/low": low, f"{name}/high": high}

    def mean(self, name: str, by_problem: ArrayLike) -> None:
        """Adds the mean of one value per problem (P,)."""
        values = np.asarray(by_problem, dtype=np.float64)
        self.statistic(name, mean_of(values), values.size, "undefined: no problems")

    def ratio(self, name: str, sums: ArrayLike, counts: ArrayLike, note: str) -> None:
        """Adds sum(sums) / sum(counts), both (P,): a mean over items whose number differs between problems."""
        self.statistic(name, ratio_of(sums, counts), np.size(sums), note)

    def curve(self, name: str, sums: ArrayLike, counts: ArrayLike) -> None:
        """Adds lists (K,) of ratios of sums and counts (P, K): `name`, `name_low`, `name_high`; None if a count is 0.

        The suffixes differ from those of single numbers, so that tables can tell the two apart by name.
        """
        top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        points = [self._estimate(ratio_of(*columns), len(top)) for columns in zip(top.T, bottom.T, strict=True)]
        for at, end in enumerate(("", "_low", "_high")):
            self.metrics[f"{name}{end}"] = [point[at] for point in points]

    def difference(
        self,
        name: str,
        a: Statistic,
        b: Statistic,
        n_problems: int,
        note: str,
        *,
        n_items: int = 0,
        lower_is_better: bool = False,
    ) -> None:
        """Adds a - b on the same resamples, with a verdict: better or worse if the interval excludes 0."""
        self.statistic(name, lambda weights: a(weights) - b(weights), n_problems, note, n_items)
        value, low, high = (self.metrics[f"{name}{end}"] for end in ("", "/low", "/high"))
        if value is None:
            return
        verdict = "cannot tell"
        if n_problems >= FEWEST_PROBLEMS and low is not None and (low > 0 or high < 0):
            verdict = "better" if (low > 0) != lower_is_better else "worse"
        self.metrics[f"{name}/verdict"] = verdict


def mean_of(by_problem: ArrayLike) -> Statistic:
    """The mean of one value per problem (P,)."""
    values = np.asarray(by_problem, dtype=np.float64)
    return lambda weights: weights @ values / weights.sum(axis=1)


def ratio_of(sums: ArrayLike, counts: ArrayLike) -> Statistic:
    """sum(sums) / sum(counts), both (P,)."""
    top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    return lambda weights: ratio(weights @ top, weights @ bottom)


def read_metrics(path: Path) -> Metrics:
    """The metrics in a file; empty if the file does not exist."""
    if not path.is_file():
        return {}
    metrics = read_json(path, "remove it, or choose another output_dir")
    if not isinstance(metrics, dict):
        raise UserError(f"{path} contains no metrics: remove it, or choose another output_dir=...")
    return metrics


def write_metrics(path: Path, metrics: Metrics) -> None:
    write_atomically(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
