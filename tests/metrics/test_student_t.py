"""Student's t-interval against published quantiles and by simulation."""

import numpy as np
import pytest

from reasoning_irl.metrics.student_t import t_interval, t_quantile


@pytest.mark.parametrize(
    ("level", "degrees", "quantile"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.3027),
        (0.95, 3, 3.1824),
        (0.95, 4, 2.7764),
        (0.95, 9, 2.2622),
        (0.95, 30, 2.0423),
        (0.99, 4, 4.6041),
        (0.50, 1, 1.0),
    ],
)
def test_quantiles_are_those_of_printed_tables(level: float, degrees: int, quantile: float) -> None:
    assert t_quantile(level, degrees) == pytest.approx(quantile, abs=5e-5)


def test_interval_of_known_numbers() -> None:
    # Mean 3, standard deviation sqrt(2.5), so half the width is 2.7764 * sqrt(2.5 / 5).
    assert t_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert t_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_interval_covers_the_mean_as_often_as_its_level() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 3)).tolist()
    covered = sum(low <= 0 <= high for _, low, high in map(t_interval, draws))
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)  # three standard errors


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="degree of freedom"):
        t_interval([1.0])
    with pytest.raises(ValueError, match="level"):
        t_quantile(1.0, 3)
