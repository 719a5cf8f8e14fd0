import numpy as np
import pytest

from reasoning_irl.metrics import weighted_statistics as weighted
from reasoning_irl.metrics.bootstrap import bootstrap_interval
from reasoning_irl.metrics.summary import Summary, mean_of, ratio_of
from reasoning_irl.metrics.traces import auroc


def resamples(n_problems, draws, seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(n_problems, size=n_problems) for _ in range(draws)]


def test_intervals_of_a_pooled_statistic_match_resampled_problems():
    rng = np.random.default_rng(3)
    problem_of, scores, labels = np.repeat(np.arange(8), 3), rng.integers(0, 4, 24).astype(float), rng.random(24) < 0.5
    summary = Summary(50, 7)
    pooled = lambda w: weighted.auroc(scores, labels, w[:, problem_of])  # noqa: E731
    summary.statistic("auroc", pooled, 8, "", n_items=24)
    areas = []
    for problems in resamples(8, 50, 7):
        at = np.concatenate([np.flatnonzero(problem_of == problem) for problem in problems])
        areas.append(auroc(scores[at], labels[at]))
    expected = np.quantile([area for area in areas if area is not None], [0.025, 0.975])
    assert summary.metrics["auroc"] == pytest.approx(auroc(scores, labels))
    assert [summary.metrics["auroc/low"], summary.metrics["auroc/high"]] == pytest.approx(expected.tolist())


def test_chunk_size_does_not_change_intervals(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole, parts = Summary(100, 1), Summary(100, 1)
    whole.mean("m", values)
    monkeypatch.setattr("reasoning_irl.metrics.summary.CHUNK", 70)
    parts.mean("m", values)
    assert parts.metrics == pytest.approx(whole.metrics)
    assert (whole.metrics["m/low"], whole.metrics["m/high"]) == pytest.approx(
        bootstrap_interval(values, np.random.default_rng(1), 100)
    )


def test_undefined_metrics_are_null_with_a_reason():
    summary = Summary(20, 0)
    summary.ratio("share", [0.0, 0.0], [0.0, 0.0], "undefined: nothing to count")
    assert summary.metrics == {
        "share": None,
        "share/low": None,
        "share/high": None,
        "share/note": "undefined: nothing to count",
    }
    summary.mean("none", [])
    assert summary.metrics["none"] is None
    summary.curve("curve", [[1.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [2.0, 0.0]])
    assert summary.metrics["curve"] == [0.75, None]
    assert summary.metrics["curve_low"][0] <= 0.75 <= summary.metrics["curve_high"][0]
    assert summary.metrics["curve_high"][1] is None


@pytest.mark.parametrize(
    ("a", "lower_is_better", "verdict"),
    [
        (1.0, False, "better"),
        (-1.0, False, "worse"),
        (1.0, True, "worse"),
        (-1.0, True, "better"),
        (0.0, False, "cannot tell"),
    ],
)
def test_verdict_of_a_difference(a, lower_is_better, verdict):
    b = np.random.default_rng(0).normal(scale=10.0, size=40)  # cancels in the difference
    summary = Summary(200, 0)
    summary.difference("d", mean_of(b + a), mean_of(b), 40, "", lower_is_better=lower_is_better)
    assert summary.metrics["d"] == pytest.approx(a)
    assert summary.metrics["d/verdict"] == verdict


def test_too_few_problems_give_no_verdict():
    for n, verdict in ((5, "cannot tell"), (6, "better")):
        summary = Summary(200, 0)
        summary.difference("d", ratio_of(np.ones(n), np.ones(n)), mean_of(np.zeros(n)), n, "")
        assert summary.metrics["d/verdict"] == verdict


def test_equal_methods_seldom_get_a_verdict():
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        summary = Summary(200, seed)
        summary.difference("d", mean_of(rng.normal(size=50)), mean_of(rng.normal(size=50)), 50, "")
        wrong += summary.metrics["d/verdict"] != "cannot tell"
    assert wrong <= 24  # 5 % of 200 is 10; with 50 problems the interval is slightly narrow; 3 standard errors are 9
