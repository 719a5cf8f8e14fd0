"""Flat metrics with 95 % bootstrap intervals over problems; what is undefined is null, with a note that says why."""

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
from reasoning_irl.utils.run_folder import write_atomically

Metrics = dict[str, Any]
Statistic = Callable[[Floats], Floats]  # (W, P) how often each problem counts -> (W,), NaN where it is undefined

# With fewer problems not even a difference of one sign in all of them is beyond chance: 2 * 0.5**5 > 0.05.
FEWEST_PROBLEMS = 6
CHUNK = 2**21  # numbers held at once while a statistic is resampled


class Summary:
    """Collects `name`, `name/low`, `name/high` or `name/note`. Every metric resamples the problems in the same way."""

    def __init__(self, draws: int, seed: int) -> None:
        self.metrics: Metrics = {}
        self._draws, self._seed = draws, seed
        self._weights: dict[int, NDArray[np.int32]] = {}

    def _estimate(
        self, of_problems: Statistic, n_problems: int, n_items: int = 0
    ) -> tuple[float | None, float | None, float | None]:
        """(value, low, high), null where undefined; resamples in which it is undefined are left out."""
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
        """A statistic of `n_problems` problems, made of `n_items` things; `note` says why it may be undefined."""
        value, low, high = self._estimate(of_problems, n_problems, n_items)
        if value is None:
            return self.missing(name, note)
        self.metrics |= {name: value, f"{name}/low": low, f"{name}/high": high}

    def mean(self, name: str, by_problem: ArrayLike) -> None:
        """The mean of one value a problem (P,)."""
        values = np.asarray(by_problem, dtype=np.float64)
        self.statistic(name, mean_of(values), values.size, "undefined: no problems")

    def ratio(self, name: str, sums: ArrayLike, counts: ArrayLike, note: str) -> None:
        """sum(sums) / sum(counts), both (P,): a mean over things of which problems have different numbers."""
        self.statistic(name, ratio_of(sums, counts), np.size(sums), note)

    def curve(self, name: str, sums: ArrayLike, counts: ArrayLike) -> None:
        """Lists (K,) of the ratios of sums and counts (P, K): `name`, `name_low`, `name_high`; null where a count is 0.

        Lists of one key each, so that whoever shows single numbers can tell them apart by name.
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
        """a - b on the same resamples, and whether the interval leaves out zero: better, worse or cannot tell."""
        self.statistic(name, lambda weights: a(weights) - b(weights), n_problems, note, n_items)
        value, low, high = (self.metrics[f"{name}{end}"] for end in ("", "/low", "/high"))
        if value is None:
            return
        verdict = "cannot tell"
        if n_problems >= FEWEST_PROBLEMS and low is not None and (low > 0 or high < 0):
            verdict = "better" if (low > 0) != lower_is_better else "worse"
        self.metrics[f"{name}/verdict"] = verdict


def mean_of(by_problem: ArrayLike) -> Statistic:
    """The mean of one value a problem (P,)."""
    values = np.asarray(by_problem, dtype=np.float64)
    return lambda weights: weights @ values / weights.sum(axis=1)


def ratio_of(sums: ArrayLike, counts: ArrayLike) -> Statistic:
    """sum(sums) / sum(counts), both (P,)."""
    top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    return lambda weights: ratio(weights @ top, weights @ bottom)


def read_metrics(path: Path) -> Metrics:
    """The metrics in a file, none where there is no file."""
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error.msg}): remove it, or choose another output_dir") from None
    if not isinstance(metrics, dict):
        raise UserError(f"{path} holds no metrics: remove it, or choose another output_dir=...")
    return metrics


def write_metrics(path: Path, metrics: Metrics) -> None:
    write_atomically(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
