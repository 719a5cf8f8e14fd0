"""A weighted statistic equals the plain one of items repeated according to their weights."""

import numpy as np
import pytest

from reasoning_irl.metrics import traces as metrics
from reasoning_irl.metrics import weighted_statistics as weighted

STATISTICS = {
    "auroc": (weighted.auroc, metrics.auroc),
    "average_precision": (weighted.average_precision, metrics.average_precision),
    "correlation": (weighted.correlation, metrics.pearson),
    "rank_correlation": (weighted.rank_correlation, metrics.spearman),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_weights_act_like_repeated_items(name):
    of_weights, plain = STATISTICS[name]
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 9))
        scores, labels = rng.integers(0, 4, size).astype(float), rng.random(size) < 0.5
        weights = rng.integers(0, 4, (3, size))
        weights[:, 0] += weights.sum(axis=1) == 0  # no resample is empty
        second = labels if "correlation" not in name else labels.astype(float)
        found = of_weights(scores, second, weights.astype(float))
        for value, counts in zip(found, weights, strict=True):
            expected = plain(np.repeat(scores, counts), np.repeat(labels, counts))
            assert value == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True)


def test_weights_of_partial_correlation_act_like_repeated_items():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y, a, b = rng.normal(size=(4, 12))
        weights = rng.integers(0, 3, (2, 12))
        found = weighted.partial_correlation(x, y, [a, b], weights.astype(float))
        for value, counts in zip(found, weights, strict=True):
            if (counts > 0).sum() > 5:
                expected = metrics.partial_correlation(
                    *(np.repeat(v, counts) for v in (x, y)), [np.repeat(v, counts) for v in (a, b)]
                )
                assert value == pytest.approx(expected, abs=1e-8)


def test_statistics_of_no_items_are_undefined():
    empty = np.zeros(0)
    for of_weights in (weighted.auroc, weighted.average_precision):
        assert np.isnan(of_weights(empty, empty.astype(bool), np.ones((2, 0)))).tolist() == [True, True]
    assert metrics.pearson([], []) is None
    assert metrics.spearman([], []) is None


def test_statistics_do_not_depend_on_the_order_of_items():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 3, 30).astype(float), rng.random(30) < 0.5
    order = rng.permutation(30)
    for plain in (metrics.auroc, metrics.average_precision, metrics.spearman):
        assert plain(scores[order], labels[order]) == pytest.approx(plain(scores, labels), abs=1e-12)
