"""The colours of token rewards."""

import re

import numpy as np
import pytest

from reasoning_irl.metrics.colours import colour_scale, coloured


def test_colour_scale_is_symmetric_about_the_median_and_ignores_outliers() -> None:
    rewards = [*np.linspace(-1, 3, 401), 1e6]
    scale = colour_scale(rewards)
    assert scale["middle"] == pytest.approx(1.0, abs=0.02)
    assert scale["high"] - scale["middle"] == pytest.approx(2.0, abs=0.06)
    assert scale["middle"] - scale["low"] == pytest.approx(scale["high"] - scale["middle"])
    assert colour_scale([None, 2.0]) == {"low": 1.0, "middle": 2.0, "high": 3.0}
    assert colour_scale([]) == {"low": -1.0, "middle": 0.0, "high": 1.0}


def test_coloured_tokens_join_to_the_text_and_show_their_sign() -> None:
    page = coloured(["a<b", "\n", "c", ""], [-2.0, 0.5, 1.0, 0.0])  # the median is .25
    assert re.sub("<[^>]*>", "", page) == "a&lt;b\nc"
    spans = re.findall(r'rgba\(([\d, ]+), ([\d.]+)\)" title="([^"]+)"', page)
    low, high = "240, 160, 80", "116, 174, 230"
    assert [(rgb, title) for rgb, _, title in spans] == [
        (low, "-2.000"),
        (high, "0.500"),
        (high, "1.000"),
        (low, "0.000"),
    ]
    strengths = [float(strength) for _, strength, _ in spans]
    assert strengths == pytest.approx([1.0, 0.12, 0.35, 0.12], abs=0.02)


def test_equal_rewards_have_no_colour() -> None:
    assert set(re.findall(r"([\d.]+)\)\"", coloured(["a", "b"], [1.0, 1.0]))) == {"0.00"}
