"""The colours of token rewards, in the report and in notebooks."""

from collections.abc import Sequence
from html import escape

import numpy as np


def colour_scale(rewards: Sequence[float | None]) -> dict[str, float]:
    """Ends and middle of the colour scale: the median, plus and minus the 98 % quantile of the distance from it.

    Symmetric, so that equally strong colours are equally far from the median; a quantile, so that a few extreme tokens
    do not make the rest pale.
    """
    finite = np.array([reward for reward in rewards if reward is not None], dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return {"low": -1.0, "middle": 0.0, "high": 1.0}
    middle = float(np.median(finite))
    distance = np.abs(finite - middle)
    reach = float(np.quantile(distance, 0.98)) or float(distance.max()) or 1.0
    return {"low": middle - reach, "middle": middle, "high": middle + reach}


def coloured(tokens: Sequence[str], rewards: Sequence[float]) -> str:
    """A trace as HTML: tokens (T,) on orange if their reward is below the median, on blue if above; each says its own.

    The colours are translucent, for light and dark pages.
    """
    scale = colour_scale(rewards)
    reach = scale["high"] - scale["middle"]
    spans = []
    for token, reward in zip(tokens, rewards, strict=True):
        strength = (reward - scale["middle"]) / reach
        rgb = "240, 160, 80" if strength < 0 else "116, 174, 230"
        style = f"background: rgba({rgb}, {min(1, abs(strength)):.2f})"
        spans.append(f'<span style="{style}" title="{reward:.3f}">{escape(token)}</span>')
    return f'<pre style="white-space: pre-wrap">{"".join(spans)}</pre>'
