import numpy as np
import pytest

from reasoning_irl.metrics.bootstrap import (
    bootstrap_interval,
    bootstrap_weights,
    paired_bootstrap,
    two_level_bootstrap,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_interval_covers_the_mean_as_often_as_its_level(rng):
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(size=40), rng, draws=200, level=0.9)
        covered += low <= 0 <= high
    assert 0.82 <= covered / 200 <= 0.96  # slightly below 0.9 with 40 problems; 3 standard errors are 0.064


def test_interval_has_the_expected_width_and_is_reproducible():
    values = np.tile([0.0, 1.0], 200)  # the mean's standard error is 0.5 / sqrt(400) = 0.025
    low, high = bootstrap_interval(values, np.random.default_rng(3), draws=4000)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.003)
    assert high - low == pytest.approx(2 * 1.96 * 0.025, rel=0.06)
    assert (low, high) == bootstrap_interval(values, np.random.default_rng(3), draws=4000)
    assert bootstrap_interval([0.4], np.random.default_rng(3)) == (0.4, 0.4)
    with pytest.raises(ValueError, match="no problems"):
        bootstrap_interval([], np.random.default_rng(3))


def test_paired_bootstrap_uses_the_pairing(rng):
    b = rng.normal(scale=10.0, size=100)
    difference, low, high = paired_bootstrap(b + 0.1, b, rng)
    assert (difference, low, high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="not paired"):
        paired_bootstrap(b, b[1:], rng)


def test_weights_count_the_problems_of_each_resample():
    weights = bootstrap_weights(60, np.random.default_rng(6), draws=500)
    assert weights.shape == (500, 60)
    assert (weights.sum(axis=1) == 60).all()
    # A problem is missing from a resample with probability (1 - 1/60)^60 = 0.365; its standard error here is 0.0028.
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 60) ** 60, abs=0.012)
    values = np.random.default_rng(5).normal(size=60)
    means = weights @ values / 60
    assert bootstrap_interval(values, np.random.default_rng(6), draws=500) == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975]))
    )
    with pytest.raises(ValueError, match="no problems"):
        bootstrap_weights(0, np.random.default_rng(6))


def test_mean_over_seeds_is_the_mean_of_their_means() -> None:
    mean, low, high = two_level_bootstrap([[0, 1], [1, 1, 1, 1]], np.random.default_rng(0), 500)
    assert mean == 0.75
    assert 0 <= low <= mean <= high <= 1


def test_with_one_seed_it_is_the_bootstrap_over_problems() -> None:
    values = np.random.default_rng(1).random(40)
    _, low, high = two_level_bootstrap([values], np.random.default_rng(0), 4000)
    width = 2 * 1.96 * values.std() / np.sqrt(values.size)  # by the central limit theorem
    assert high - low == pytest.approx(width, rel=0.1)


def test_disagreeing_seeds_widen_the_interval() -> None:
    """Trap: pooling problems over seeds, which hides the variance between seeds."""
    equal = two_level_bootstrap([np.tile([0, 1], 500)] * 3, np.random.default_rng(0), 500)
    different = two_level_bootstrap(
        [np.zeros(1000), np.tile([0, 1], 500), np.ones(1000)], np.random.default_rng(0), 500
    )
    assert equal[0] == different[0] == 0.5
    assert different[2] - different[1] > 5 * (equal[2] - equal[1])


def test_seed_without_problems_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        two_level_bootstrap([[1.0], []], np.random.default_rng(0), 10)
