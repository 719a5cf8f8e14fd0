"""Student's t-interval of a mean: for the few seeds of an experiment, which are too few for a bootstrap."""

import math
import statistics
from collections.abc import Sequence

HALVINGS = 60  # of the angle's range: down to the precision of a float


def t_quantile(level: float, degrees: int) -> float:
    """The t whose interval (-t, t) has the probability `level` under Student's distribution."""
    if not 0 < level < 1 or degrees < 1:
        raise ValueError(f"needs a level between 0 and 1 and at least one degree of freedom, got {level} and {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of independent values, at least two of them."""
    mean, n = statistics.fmean(values), len(values)
    half = t_quantile(level, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def _probability_within(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) * tan(angle)), a finite sum for whole degrees (Abramowitz and Stegun 1964, 26.7.3-4)."""
    is_odd = degrees % 2
    term, total = math.cos(angle) ** is_odd, 0.0
    for power in range(is_odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if is_odd else total
