import numpy as np
import pytest

from reasoning_irl.metrics.bootstrap import two_level_bootstrap


def test_the_mean_is_that_of_the_seeds_means() -> None:
    mean, low, high = two_level_bootstrap([[0, 1], [1, 1, 1, 1]], np.random.default_rng(0), 500)
    assert mean == 0.75
    assert 0 <= low <= mean <= high <= 1


def test_one_seed_is_the_bootstrap_over_problems() -> None:
    values = np.random.default_rng(1).random(40)
    _, low, high = two_level_bootstrap([values], np.random.default_rng(0), 4000)
    width = 2 * 1.96 * values.std() / np.sqrt(values.size)  # the central limit's
    assert high - low == pytest.approx(width, rel=0.1)


def test_seeds_that_disagree_widen_the_interval() -> None:
    """Trap: problems pooled over seeds, so that what the seed decides looks certain."""
    alike = two_level_bootstrap([np.tile([0, 1], 500)] * 3, np.random.default_rng(0), 500)
    apart = two_level_bootstrap([np.zeros(1000), np.tile([0, 1], 500), np.ones(1000)], np.random.default_rng(0), 500)
    assert alike[0] == apart[0] == 0.5
    assert apart[2] - apart[1] > 5 * (alike[2] - alike[1])


def test_a_seed_without_problems_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        two_level_bootstrap([[1.0], []], np.random.default_rng(0), 10)
