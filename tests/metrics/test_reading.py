"""How token values become a score, and that metrics.json keeps what the score needs."""

import json

import pytest

from reasoning_irl.metrics.calibration import Platt
from reasoning_irl.metrics.reading import PRODUCT, Reading

VALUES, STEPS = [1.0, -3.0, 2.0, 4.0], [0, 1, 2, 2]
CURVE = Platt(0.5, 0.25)


@pytest.mark.parametrize(("how", "score"), [("mean", 1.0), ("min", -3.0), ("step_min", -3.0), ("last", 4.0)])
def test_score_is_the_aggregation_of_the_tokens(how: str, score: float) -> None:
    assert Reading(how, "").score(VALUES, STEPS) == score


@pytest.mark.parametrize("how", ["step_min", PRODUCT])
def test_metrics_keep_all_that_the_score_needs(how: str) -> None:
    """Trap: the product without its calibration, which no other metric holds."""
    reading = Reading(how, "auroc on validation", CURVE)
    metrics = json.loads(json.dumps(reading.as_metrics("reward")))
    again = Reading.from_metrics(metrics, "reward")
    assert (again.aggregation, again.by) == (how, "auroc on validation")
    assert again.score(VALUES, STEPS) == reading.score(VALUES, STEPS)
    assert ("choice/reward/aggregation/steps" in metrics) == (how == PRODUCT)
