"""One self-contained HTML page of an evaluation: tables by question, figures, and traces coloured by token reward.

Text that a model wrote is not trusted. It is in the page only as JSON inside a data block, in which every `<` is
escaped so that nothing can close the block, and the page shows it only as text nodes.
"""

import base64
import json
import math
import random
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_irl import __version__
from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.eval.reports.tables import DIFFERENCES, MEANINGS, QUESTIONS, Table, layout, with_aliases
from reasoning_irl.eval.scoring.methods import BY_NAME, REWARD, difference
from reasoning_irl.metrics.colours import colour_scale
from reasoning_irl.metrics.summary import Metrics
from reasoning_irl.metrics.traces import step_scores
from reasoning_irl.text.token_spans import cut, spans_of, step_ids, steps_in
from reasoning_irl.utils.run_folder import FIGURES, PLANTED_FILE, REPORT_FILE

TEMPLATE, DATA_MARK = "report_template.html", "{{DATA}}"
SHOWN = ("id", "sample", "answer", "reference", "correct", "first_error_step", "planted")
NATURAL, PLANTED = "natural", "planted"
ENDS = ("low", "high", "verdict", "note")
PLACES = {"value": "", "low": "/low", "high": "/high"}
CAPTIONS = {
    "training_curves": "Training, by policy step: each value in grey, their moving mean in colour.",
    "reward_distributions": "Scores of test traces, right and wrong. The less they overlap, the better the reward.",
    "rerank_vs_n": "Problems answered right if one of n samples is chosen, by what chooses.",
    "calibration": "Calibrated probability of being right, and the share that is: on the diagonal it can be trusted.",
    "reward_by_position": "Mean token reward along a trace, right and wrong.",
    "first_wrong_step": "How often the lowest-scored step is the first wrong one, with 95 % intervals.",
}


def _finite(value: Any) -> Any:
    """A float rounded to five significant digits, None for NaN and infinities; other values unchanged."""
    if not isinstance(value, (float, np.floating)):
        return value
    return float(f"{float(value):.5g}") if math.isfinite(value) else None


def _view(trace: Mapping[str, Any], how: Mapping[str, str], digits: int) -> dict[str, Any]:
    """The page's data of a trace: its text in pieces (tokens if known), and the range of pieces of each step.

    `how`: the step score for natural and for planted errors; `digits`: decimals of a reward.
    """
    text, pieces, rewards = trace["completion"], trace.get("tokens"), trace.get("token_rewards")
    if pieces and rewards:
        if len(pieces) != len(rewards):
            raise ValueError(f"trace {trace.get('id')!r}: {len(pieces)} tokens, {len(rewards)} token rewards")
        text = "".join(pieces)
    named, label = trace.get("steps") or [], trace.get("first_error_step") or 0
    spans = steps_in(text, named)
    if not (pieces and rewards):
        pieces, rewards = cut(text, [*(edge for span in spans for edge in span), len(text)]), None
    ids = step_ids(text, spans_of(pieces), spans)
    places = {step: [i for i, of_token in enumerate(ids) if of_token == step] for step in range(1, len(spans) + 1)}
    scores: list[float | None] = [None] * len(spans)
    guess = None
    if rewards and spans and all(reward is not None and math.isfinite(reward) for reward in rewards):
        found = step_scores(rewards, ids, how[PLANTED if trace.get("planted") else NATURAL], len(spans))
        scores = [_finite(score) for score in found]
        guess = int(np.argmin(found)) + 1 if np.isfinite(found).any() else None
    # A label counts the steps as the file cuts them, so it cannot be shown on steps cut in another way.
    is_marked = bool(places.get(label)) and (not named or len(named) == len(spans))
    prompt = trace.get("prompt") or [{"content": ""}]
    view = {
        **{key: trace.get(key) for key in SHOWN},
        "question": trace.get("question") or (prompt if isinstance(prompt, str) else prompt[-1]["content"]),
        "score": _finite(trace.get("score")),
        "logprob": _finite(trace.get("logprob")),
        "pieces": pieces,
        "rewards": rewards and [_rounded(reward, digits) for reward in rewards],
        # [first token, last token + 1, score]; an empty range for a step without tokens
        "steps": [
            [at[0], at[-1] + 1, score] if at else [0, 0, None]
            for at, score in zip(places.values(), scores, strict=True)
        ],
        "guess": guess,
        "wrong": label if is_marked else None,
        "wrong_text": named[label - 1] if 1 <= label <= len(named) and not is_marked else None,
    }
    return {key: value for key, value in view.items() if value is not None}


def _rounded(reward: float | None, digits: int) -> float | None:
    # Adding zero turns -0.0 into 0.0.
    return None if reward is None or not math.isfinite(reward) else round(float(reward), digits) + 0.0


def _table(table: Table, metrics: Metrics) -> dict[str, Any]:
    """The cells of a table by row, each with its value and, if compared, the reward's value minus it."""

    def cell(name: str) -> dict[str, Any] | None:
        found = {end: _finite(metrics.get(f"{name}/{end}")) for end in ENDS}
        found = {
            "value": _finite(metrics.get(name)),
            **{end: value for end, value in found.items() if value is not None},
        }
        return found if found["value"] is not None or "note" in found else None

    rows = []
    for prefix, method in table.methods.items():
        cells = [cell(f"{prefix}/{metric}") for metric in table.columns.values()]
        differences = [cell(difference(prefix, metric)) for metric in table.columns.values()]
        if any(cells) or any(differences):
            rows.append({"method": method, "cells": cells, "differences": differences})
    return {"title": table.title, "columns": list(table.columns), "intervals": table.intervals, "rows": rows}


def _terms(tables: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the rows and columns of these tables mean, where that is not plain."""
    methods = dict.fromkeys(row["method"] for table in tables for row in table["rows"] if row["method"] in BY_NAME)
    columns = dict.fromkeys(column for table in tables for column in table["columns"] if column in MEANINGS)
    return [*((method, BY_NAME[method].meaning) for method in methods), *((c, MEANINGS[c]) for c in columns)]


def _questions(metrics: Metrics) -> list[dict[str, Any]]:
    """The tables by question. Differences are shown in the cells of the baselines, not as a table of their own."""
    tables, shown = layout(metrics), with_aliases(metrics)
    grouped = {
        question: [_table(table, shown) for table in tables if table.question == question]
        for question in QUESTIONS
        if question != DIFFERENCES
    }
    return [
        {"question": question, "terms": _terms(found), "tables": found} for question, found in grouped.items() if found
    ]


def _summary(metrics: Metrics) -> list[dict[str, Any]]:
    """What the reward is for, in up to three numbers, each with the baselines that it has to beat."""
    n = metrics.get("n_rerank")
    source = next((s for s in (NATURAL, PLANTED) if f"{REWARD}/first_error_hit@1/{s}" in metrics), NATURAL)
    numbers = [
        (
            f"Choosing one of {n} samples",
            "of problems right",
            f"rerank@1|{n}",
            ("random", "majority", "logprob", "frozen"),
        ),
        (
            "Ordering samples of a problem",
            "AUROC within a problem",
            "auroc_within_prompt",
            ("length", "logprob", "frozen"),
        ),
        (
            "Finding the first wrong step",
            f"of {source} errors found",
            f"first_error_hit@1/{source}",
            ("first_step", "last_step", "logprob", "frozen"),
        ),
    ]
    return [
        {
            "title": title,
            "unit": unit,
            **{end: _finite(metrics.get(f"{REWARD}/{name}{mark}")) for end, mark in PLACES.items()},
            "against": [
                {
                    "method": BY_NAME[method].label,
                    "value": _finite(metrics[f"{method}/{name}"]),
                    "difference": _finite(metrics.get(difference(method, name))),
                    "verdict": metrics.get(f"{difference(method, name)}/verdict"),
                }
                for method in others
                if metrics.get(f"{method}/{name}") is not None
            ],
        }
        for title, unit, name, others in numbers
        if metrics.get(f"{REWARD}/{name}") is not None
    ]


def _facts(metrics: Metrics, n_problems: int) -> list[tuple[str, str]]:
    """What was evaluated, with what supervision, by which version and when."""
    samples = f", {metrics['n_samples']} samples each" if "n_samples" in metrics else ""
    facts = {
        "Test data": f"{n_problems:,} problems{samples}",
        "Policy": metrics.get("policy"),
        "Supervision": metrics.get("supervision", "not declared"),
        "Choices": metrics.get("choice/supervision"),
        "Written by": f"reasoning_irl {__version__}, {date.today().isoformat()}",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def write_report(
    path: Path,
    title: str,
    metrics: Metrics,
    traces: Sequence[Mapping[str, Any]],
    images: Sequence[tuple[str, Path]],
    n_available: int | None = None,
) -> None:
    """Writes the page to `path`; it needs no other file and no network.

    `metrics`: as in metrics.json. `traces`: as in traces.jsonl; only `completion` is required, tokens are coloured if
    both `tokens` and `token_rewards` are there, and the key `planted` (the kind of edit) marks a planted error.
    `images`: caption and PNG file. `n_available`: the number of sampled traces from which these were chosen.
    """
    scale = colour_scale([reward for trace in traces for reward in trace.get("token_rewards") or []])
    digits = max(0, 2 - math.floor(math.log10(scale["high"] - scale["middle"])))  # at least three digits of the scale
    how = {source: str(metrics.get(f"choice/reward/step_score/{source}", "mean")) for source in (NATURAL, PLANTED)}
    data = {
        "title": title,
        "facts": _facts(metrics, metrics.get("n_test_problems", len({trace.get("id") for trace in traces}))),
        "summary": _summary(with_aliases(metrics)),
        "n_available": n_available,
        "aggregation": metrics.get("choice/reward/aggregation"),
        "step_score": how,
        "questions": _questions(metrics),
        "images": [{"caption": caption, "png": base64.b64encode(png.read_bytes()).decode()} for caption, png in images],
        "scale": {end: _finite(value) for end, value in scale.items()},
        "traces": [_view(trace, how, digits) for trace in traces],
    }
    # `<` is the only character that HTML reads as markup inside a data block.
    block = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.replace(DATA_MARK, block, 1), encoding="utf-8")


PLANTED_SHOWN = 100  # planted errors in the report


def write_run_report(output_dir: Path, metrics: Metrics, rows: list[dict[str, Any]], n_available: int) -> None:
    """Writes report.html with these test traces (chosen from `n_available`), the run's figures and planted errors."""
    files = sorted((output_dir / FIGURES).glob("*.png"), key=lambda path: [*CAPTIONS, path.stem].index(path.stem))
    images = [(CAPTIONS.get(path.stem, path.stem), path) for path in files]
    file = output_dir / PLANTED_FILE
    planted = [row for _, row in read_jsonl(file)][:PLANTED_SHOWN] if file.is_file() else []
    write_report(
        output_dir / REPORT_FILE, f"Evaluation of {output_dir}", metrics, [*rows, *planted], images, n_available
    )


def balanced(rows: Sequence[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """At most n rows in random order, half of them right and half wrong if there are enough of both."""
    shuffled = random.Random(f"report {seed}").sample(list(rows), len(rows))
    right = [row for row in shuffled if row["correct"]]
    wrong = [row for row in shuffled if not row["correct"]]
    n_right = min(len(right), max(n // 2, n - len(wrong)))
    chosen = right[:n_right] + wrong[: n - n_right]
    return random.Random(f"order {seed}").sample(chosen, len(chosen))
