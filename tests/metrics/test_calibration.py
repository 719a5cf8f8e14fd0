import numpy as np
import pytest

from reasoning_irl.metrics.calibration import Platt, bin_of, brier, ece, fit_platt, reliability


def case(seed):
    """Probabilities on a grid, so that many are equal and some are at the edges of bins."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    return rng.integers(0, 21, size) / 20, rng.random(size) < 0.5, int(rng.integers(1, 12))


def plain_bin(p, others, how, n_bins):
    if how == "equal_width":
        return sum(p >= edge / n_bins for edge in range(1, n_bins))
    below, equal = sum(o < p for o in others), sum(o == p for o in others)
    return sum(2 * edge * len(others) <= (2 * below + equal) * n_bins for edge in range(1, n_bins))


@pytest.mark.parametrize("how", ["equal_mass", "equal_width"])
def test_calibration_errors_match_plain_sums(how):
    for seed in range(1000):
        p, right, n_bins = case(seed)
        bins = [plain_bin(value, p, how, n_bins) for value in p]
        assert bin_of(p, how, n_bins).tolist() == bins
        total, points = 0.0, []
        for b in range(n_bins):
            held = [i for i in range(p.size) if bins[i] == b]
            if held:
                share, mean = sum(right[held]) / len(held), sum(p[held]) / len(held)
                total += len(held) / p.size * abs(share - mean)
                points.append((pytest.approx(mean), pytest.approx(share), len(held)))
        assert ece(p, right, how, n_bins) == pytest.approx(total, abs=1e-12)
        assert reliability(p, right, how, n_bins) == points
        squares = [(value - flag) ** 2 for value, flag in zip(p, right.tolist(), strict=True)]
        assert brier(p, right) == pytest.approx(sum(squares) / p.size)


def test_equal_mass_bins_have_equal_counts():
    p = np.random.default_rng(0).permutation(1000) / 1000
    assert np.bincount(bin_of(p)).tolist() == [100] * 10
    assert len(set(bin_of(np.full(7, 0.3)).tolist())) == 1  # equal probabilities share a bin


def test_calibration_errors_by_hand():
    assert ece([0.8] * 5, [1, 1, 1, 1, 0]) == pytest.approx(0.0)
    assert ece([0.9] * 4, [1, 0, 0, 0]) == pytest.approx(0.65)
    assert brier([1.0, 0.0, 0.5], [1, 0, 1]) == pytest.approx(0.25 / 3)
    assert ece([], []) is None
    assert brier([], []) is None
    for bad, message in (([float("nan")], "NaN"), ([float("inf")], "finite"), ([1.5], "be in 0..1")):
        with pytest.raises(ValueError, match=message):
            ece(bad, [1])
    with pytest.raises(ValueError, match="unknown bins"):
        ece([0.5], [1], "quantile")


def likelihood(slope, intercept, x, targets):
    z = slope * x + intercept
    return (np.logaddexp(0, z) - targets * z).sum()


def test_fitted_curve_maximises_the_likelihood():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 30))
        scale = float(10.0 ** rng.integers(-6, 7))
        x = (rng.integers(-3, 4, size) if seed % 2 else rng.normal(size=size) + 5) * scale
        labels = rng.random(size) < 1 / (1 + np.exp(-x / scale))
        found = fit_platt(x, labels)
        n = labels.sum()
        if n in (0, size):
            assert found is None
            continue
        targets = np.where(labels, (n + 1) / (n + 2), 1 / (size - n + 2))
        best = likelihood(found.slope, found.intercept, x, targets)
        for step in (1e-3, 0.1, 1.0):
            for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)):
                other = likelihood(found.slope + a * step / scale, found.intercept + b * step, x, targets)
                assert best <= other + 1e-8 * size


def test_fit_of_separable_constant_and_reversed_scores():
    split = fit_platt([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])
    assert split.slope > 0
    assert split.probabilities([0.0, 3.0]) == pytest.approx([1 / 4, 3 / 4], abs=0.1)  # Platt's targets
    constant = fit_platt(np.full(98, 7.0), np.arange(98) < 49)
    assert constant.probabilities([7.0])[0] == pytest.approx(0.5)
    assert constant.slope == 0.0
    worse = fit_platt([3.0, 2.0, 1.0, 0.0, 1.5], [0, 0, 1, 1, 1])
    assert worse.slope < 0  # the direction is fitted too


def test_log_probabilities_do_not_underflow():
    assert Platt(1.0, 0.0).log_probabilities([-1000.0, 1000.0]).tolist() == [-1000.0, 0.0]
