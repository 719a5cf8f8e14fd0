"""One self-contained HTML page of an evaluation: a summary table, pictures, and traces coloured by token reward.

Text that a model wrote is hostile until shown otherwise. It reaches the page only as JSON inside a data block,
in which no `<` is left that could close the block, and the page puts it on screen only as text nodes.
"""

import base64
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_irl.data.records import Span, step_spans

TEMPLATE, DATA_MARK = "report_template.html", "{{DATA}}"
SHOWN = ("id", "sample", "answer", "correct", "first_error_step", "supervision")


def _finite(value: Any) -> float | None:
    """A number as JSON can hold it, to six significant digits; None for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.6g}")


def colour_scale(rewards: Sequence[float | None]) -> dict[str, float]:
    """Ends and middle of the colour scale: the median, and as far to each side as 98 % of rewards reach.

    Symmetric, so that equal strength of colour means equal distance from the median; and a few extreme tokens
    do not wash out the rest.
    """
    finite = np.array([reward for reward in rewards if reward is not None], dtype=np.float64)
    if finite.size == 0:
        return {"low": -1.0, "middle": 0.0, "high": 1.0}
    middle = float(np.median(finite))
    distance = np.abs(finite - middle)
    reach = float(np.quantile(distance, 0.98)) or float(distance.max()) or 1.0
    return {"low": middle - reach, "middle": middle, "high": middle + reach}


def locate_step(text: str, steps: Sequence[str], step: int) -> Span | None:
    """Characters of the step-th (1-based) of `steps` in `text`; None where `text` lacks them in that order."""
    if not 1 <= step <= len(steps):
        return None
    spans = step_spans(text)
    if [text[slice(*span)].strip() for span in spans] == [given.strip() for given in steps]:
        return spans[step - 1]
    start = end = 0  # steps cut by another rule, paragraphs for one: look for each behind the one before
    for given in steps[:step]:
        start = text.find(given.strip(), end)
        if start < 0:
            return None
        end = start + len(given.strip())
    return start, end


def _touched(pieces: Sequence[str], span: Span) -> tuple[int, int] | None:
    """Range [first, end) of the pieces that hold some visible text of the span."""
    text, ends = "".join(pieces), np.cumsum([len(piece) for piece in pieces]).tolist()
    inside = [
        index
        for index, (piece, end) in enumerate(zip(pieces, ends, strict=True))
        if text[max(end - len(piece), span[0]) : min(end, span[1])].strip()
    ]
    return (inside[0], inside[-1] + 1) if inside else None


def _view(trace: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a trace: its text in pieces (tokens where known), and which are the wrong step."""
    pieces, rewards = trace.get("tokens"), trace.get("token_rewards")
    if not pieces or not rewards:
        pieces, rewards = [trace["completion"]], None
    elif len(pieces) != len(rewards):
        raise ValueError(f"trace {trace.get('id')!r}: {len(pieces)} tokens, {len(rewards)} token rewards")
    steps, wrong_step = trace.get("steps") or [], trace.get("first_error_step") or 0
    span = locate_step("".join(pieces), steps, wrong_step)
    if span and rewards is None:
        text, (start, end) = pieces[0], span
        pieces = [text[:start], text[start:end], text[end:]]
    prompt = trace.get("prompt") or [{"content": ""}]
    return {
        **{key: trace.get(key) for key in SHOWN},
        "question": trace.get("question") or (prompt if isinstance(prompt, str) else prompt[-1]["content"]),
        "score": _finite(trace.get("score")),
        "logprob": _finite(trace.get("logprob")),
        "pieces": pieces,
        "rewards": rewards and [_finite(reward) for reward in rewards],
        "wrong": _touched(pieces, span) if span else None,
        "wrong_text": steps[wrong_step - 1] if 1 <= wrong_step <= len(steps) else None,
    }


def write_report(
    path: Path,
    title: str,
    summary_rows: list[dict[str, Any]],
    traces: list[dict[str, Any]],
    images: list[tuple[str, Path]],
) -> None:
    """Write the page to `path`; it needs no other file and no network.

    `summary_rows`: method, metric, value and, where known, low and high (ends of the 95 % interval),
    supervision and note. `traces`: as in traces.jsonl; only `completion` must be there, and tokens are coloured
    where `tokens` and `token_rewards` both are. `images`: caption and PNG file.
    """
    views = [_view(trace) for trace in traces]
    data = {
        "title": title,
        "summary": [
            {key: _finite(value) if isinstance(value, float) else value for key, value in row.items()}
            for row in summary_rows
        ],
        "images": [{"caption": caption, "png": base64.b64encode(png.read_bytes()).decode()} for caption, png in images],
        "scale": colour_scale([reward for view in views for reward in view["rewards"] or []]),
        "traces": views,
    }
    # The one character that HTML reads as markup inside a data block is written as a JSON escape.
    block = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.replace(DATA_MARK, block, 1), encoding="utf-8")
