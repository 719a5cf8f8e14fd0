"""The reported metrics of whole-trace scores, against the plain metrics of the same traces."""

import numpy as np
import pytest

from reasoning_irl.eval.reports.correctness import (
    COMPARED,
    calibrate,
    part_of,
    report_correctness,
    report_positions,
    report_reliability,
)
from reasoning_irl.eval.scoring.methods import BY_NAME
from reasoning_irl.eval.traces.labelled import Labelled
from reasoning_irl.metrics import traces as metrics
from reasoning_irl.metrics.calibration import bin_of, brier, ece, reliability
from reasoning_irl.metrics.summary import Summary
from reasoning_irl.metrics.traces import Floats
from reasoning_irl.text.trace import is_well_formed


def calibrated(summary: Summary, scores: Floats, data: Labelled) -> Floats:
    """Probabilities of one score, calibrated on the same traces."""
    found = calibrate(summary, {"reward": scores}, {"reward": scores}, data)["reward"]
    assert found is not None
    return found


def test_reported_metrics_match_plain_metrics(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    p = calibrated(summary, scores, data)
    report_correctness(summary, {"reward": scores}, {"reward": p}, data)
    right, problems = data.correct.astype(float), [trace.problem for trace in data.traces]
    well_formed = [float(is_well_formed(trace.row["completion"])) for trace in data.traces]
    assert len(set(well_formed)) == 2
    expected = {
        "auroc": metrics.auroc(scores, right),
        "auroc_within_prompt": metrics.auroc_within_prompt(scores, right, problems),
        "auprc": metrics.average_precision(scores, right),
        "ece": ece(p, right),
        "ece_equal_width": ece(p, right, "equal_width"),
        "brier": brier(p, right),
        "correlation": metrics.pearson(scores, right),
        "rank_correlation": metrics.spearman(scores, right),
        "partial_correlation": metrics.partial_correlation(scores, right, [data.lengths, well_formed]),
        "length_correlation": metrics.pearson(scores, data.lengths),
        "format_correlation": metrics.pearson(scores, well_formed),
    }
    for name, value in expected.items():
        assert value is not None
        assert summary.metrics[f"reward/{name}"] == pytest.approx(value, abs=1e-12)


def test_differences_from_baselines_know_which_direction_is_better(data: Labelled) -> None:
    """Trap: a lower Brier score or calibration error reported as worse."""
    noise = np.random.default_rng(4).normal(size=32)
    of_test = {"reward": data.correct.astype(float), "logprob": noise, "frozen": None}
    summary = Summary(200, 0)
    report_correctness(summary, of_test, calibrate(summary, of_test, of_test, data), data)
    found = summary.metrics
    for metric in COMPARED:
        expected = found[f"reward/{metric}"] - found[f"logprob/{metric}"]
        assert found[f"reward_minus_logprob/{metric}"] == pytest.approx(expected)
    assert found["reward_minus_logprob/auroc/verdict"] == found["reward_minus_logprob/brier/verdict"] == "better"
    assert found["reward_minus_logprob/brier"] < 0
    for name in ("frozen/auroc", "reward_minus_frozen/auroc"):
        assert found[name] is None
        assert found[f"{name}/note"] == BY_NAME["frozen"].not_scored
    assert "reward_minus_random/auroc" not in found  # random was not scored


def test_calibration_is_fitted_on_the_validation_split(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    found = calibrate(summary, {"a": scores, "b": None}, {"a": -scores, "b": None}, data)
    assert found["b"] is None
    assert found["a"] is not None
    # On validation, low scores were right: probabilities fall with the score, whatever the test labels say.
    assert np.all(np.diff(found["a"][np.argsort(scores)]) <= 0)


def test_without_both_classes_on_validation_there_is_no_calibration(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    all_right = Labelled(data.traces, np.ones(32, dtype=bool), data.lengths, data.members)
    probabilities = calibrate(summary, {"reward": scores}, {"reward": scores}, all_right)
    report_correctness(summary, {"reward": scores}, probabilities, data)
    assert summary.metrics["reward/ece"] is None
    assert "validation" in summary.metrics["reward/ece/note"]
    assert summary.metrics["reward/auroc"] is not None


def test_reliability_diagram_has_one_point_per_bin(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    p = calibrated(summary, scores, data)
    report_reliability(summary, "reward", p, data)
    lists = [summary.metrics[f"calibration/reward/bin_{name}"] for name in ("confidence", "accuracy", "count")]
    points = [point for point in zip(*lists, strict=True) if point[2]]
    assert points == [pytest.approx(point) for point in reliability(p, data.correct)]
    assert len(set(bin_of(p).tolist())) == len(points)


def test_mean_reward_by_position_matches_a_plain_loop(data: Labelled) -> None:
    summary, rng = Summary(30, 0), np.random.default_rng(2)
    values = [rng.normal(size=len(trace.sequence.completion_ids)).tolist() for trace in data.traces]
    report_positions(summary, "reward", values, data)
    for kind, flag in (("right", True), ("wrong", False)):
        for part in range(10):
            means = []
            for of_tokens, right in zip(values, data.correct, strict=True):
                n = len(of_tokens)
                inside = [v for t, v in enumerate(of_tokens) if part / 10 <= (t + 0.5) / n < (part + 1) / 10]
                if right == flag and inside:
                    means.append(np.mean(inside))
            assert summary.metrics[f"position/reward/{kind}"][part] == pytest.approx(np.mean(means))
    assert part_of(10).tolist() == list(range(10))
    assert part_of(1).tolist() == [5]
