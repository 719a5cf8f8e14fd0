"""How the rewards of a trace's tokens become its score: what an evaluation chooses on validation, and scoring repeats.

In metrics.json the choice of a method has the names `choice/METHOD/aggregation`, `.../aggregation/by` and, for the
product, `.../aggregation/steps` with the slope and the intercept of its calibration; EVALUATED says of which model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from reasoning_irl.metrics.calibration import Platt
from reasoning_irl.metrics.traces import AGGREGATIONS, Floats, TokenValues, Values, step_scores
from reasoning_irl.utils.run_folder import name_in

# Multiplies the calibrated probabilities of the steps (Lightman et al. 2023); the others are AGGREGATIONS.
PRODUCT = "product"
EVALUATED = "choice/reward/model"  # relative to the folder of the metrics, if it is in there


@dataclass(frozen=True)
class Reading:
    """An aggregation, and how it was chosen; `of_step` is the calibration that the product needs."""

    aggregation: str
    by: str
    of_step: Platt | None = None

    def __post_init__(self) -> None:
        if self.aggregation not in (*AGGREGATIONS, PRODUCT) or (self.aggregation == PRODUCT and self.of_step is None):
            raise ValueError(f"unknown aggregation {self.aggregation!r}, or a product without its calibration")

    def score(self, token_values: Values, step_ids: ArrayLike) -> float:
        """The score of a trace from its tokens' values (T,) and the step (T,) of each, from 1."""
        if self.aggregation == PRODUCT:
            assert self.of_step is not None
            return float(self.of_step.log_probabilities(step_means(token_values, step_ids)).sum())
        return AGGREGATIONS[self.aggregation](token_values, step_ids)

    def scores(self, token_values: TokenValues, step_ids: Sequence[Sequence[int]]) -> Floats:
        """Scores (N,) of traces from their tokens' values (N lists of T) and steps."""
        pairs = zip(token_values, step_ids, strict=True)
        return np.array([self.score(values, steps) for values, steps in pairs], dtype=np.float64)

    def as_metrics(self, method: str) -> dict[str, Any]:
        name = f"choice/{method}/aggregation"
        found: dict[str, Any] = {name: self.aggregation, f"{name}/by": self.by}
        if self.aggregation == PRODUCT and self.of_step is not None:
            found[f"{name}/steps"] = [self.of_step.slope, self.of_step.intercept]
        return found

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any], method: str) -> "Reading | None":
        """The reading that `as_metrics` wrote; None without one, or for one that is not known."""
        name = f"choice/{method}/aggregation"
        curve = metrics.get(f"{name}/steps")
        try:
            return cls(metrics[name], metrics[f"{name}/by"], None if curve is None else Platt(*curve))
        except (KeyError, TypeError, ValueError):
            return None


def is_of(metrics: Mapping[str, Any], run: Path, reward: Path) -> bool:
    """Whether the metrics in a run's folder are of this reward model; those of older versions are of the newest."""
    own = name_in(run, str(reward))
    return "choice/reward/aggregation" in metrics and metrics.get(EVALUATED, own) == own


def step_means(token_values: Values, step_ids: ArrayLike) -> Floats:
    """Mean value (S,) of each step that has tokens; a trace without steps counts as one step."""
    means = step_scores(token_values, step_ids)
    means = means[np.isfinite(means)]
    return means if means.size else np.array([np.mean(token_values, dtype=np.float64)])
