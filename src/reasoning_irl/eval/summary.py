"""Flat metrics with 95 % bootstrap intervals over problems; what is undefined is null, with a note that says why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasoning_irl.eval.metrics import bootstrap_interval, bootstrap_statistic, paired_bootstrap
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import write_atomically

Metrics = dict[str, Any]


class Summary:
    """Collects `name`, `name/low`, `name/high` or `name/note`. Every metric resamples the problems in the same way."""

    def __init__(self, draws: int, seed: int) -> None:
        self.metrics: Metrics = {}
        self._draws, self._seed = draws, seed

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self._seed)

    def _put(self, name: str, value: float, interval: tuple[float, float] | None) -> None:
        low, high = interval or (None, None)
        self.metrics |= {name: float(value), f"{name}/low": low, f"{name}/high": high}

    def missing(self, name: str, note: str) -> None:
        self.metrics |= {name: None, f"{name}/low": None, f"{name}/high": None, f"{name}/note": note}

    def mean(self, name: str, by_problem: ArrayLike) -> None:
        """The mean of one value a problem (P,)."""
        values = np.asarray(by_problem, dtype=np.float64)
        self._put(name, values.mean(), bootstrap_interval(values, self._rng(), self._draws))

    def ratio(self, name: str, sums: ArrayLike, counts: ArrayLike, note: str) -> None:
        """sum(sums) / sum(counts), both (P,): a mean over things of which problems have different numbers."""
        top, bottom = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        self.statistic(name, lambda at: top[at].sum() / total if (total := bottom[at].sum()) else None, top.size, note)

    def statistic(
        self, name: str, of_problems: Callable[[NDArray[np.int64]], float | None], n_problems: int, note: str
    ) -> None:
        """A statistic of the problems at the indices (P,) it is given; `note` says why it may be undefined."""
        value = of_problems(np.arange(n_problems)) if n_problems else None
        if value is None:
            return self.missing(name, note)
        self._put(name, value, bootstrap_statistic(of_problems, n_problems, self._rng(), self._draws))

    def difference(self, name: str, a: ArrayLike, b: ArrayLike) -> None:
        """Mean of a - b over the same problems (P,), and whether the interval leaves out zero."""
        value, low, high = paired_bootstrap(a, b, self._rng(), self._draws)
        self._put(name, value, (low, high))
        self.metrics[f"{name}/verdict"] = "better" if low > 0 else "worse" if high < 0 else "cannot tell"


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
