"""Figures of one run: `python figures/plot_run.py RUN_DIR`.

Reads train_log.jsonl, traces.jsonl and metrics.json in RUN_DIR and writes PNG and PDF files to RUN_DIR/figures. Every
number in a figure comes from those files; only histogram counts are computed here.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, only figures/ is on the path
from figures.style import BLUE, GREEN, GREY, ORANGE, PALETTE, PANEL, PURPLE, RIGHT, VERMILION, WRONG, save, use_style
from reasoning_irl.eval.scoring.methods import BY_NAME, CHOOSING, LOCATING, Output
from reasoning_irl.utils.run_folder import CONFIG_FILE, load_run_config

Row = dict[str, Any]

GUARDED = "discriminator/heldout_auroc"  # the metric that the guard watches
# Panels of the training curves: title, unit of the y axis, and its lines (metric, label, colour).
PANELS: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    ("Discriminator loss", "loss", [("discriminator/loss", "", BLUE)]),
    (
        "Discriminator accuracy",
        "accuracy",
        [
            ("discriminator/accuracy_expert", "expert", BLUE),
            ("discriminator/accuracy_policy", "policy", ORANGE),
            ("discriminator/accuracy_perturbed", "perturbed", GREEN),
        ],
    ),
    ("Held-out experts against policy", "AUROC", [(GUARDED, "", BLUE)]),
    ("Reward of policy samples", "mean reward", [("policy/reward_mean", "", VERMILION)]),
    ("Length of policy samples", "mean length (tokens)", [("policy/completion_length", "", VERMILION)]),
    ("Policy entropy", "entropy (nats / token)", [("policy/entropy", "", VERMILION)]),
    ("Distance from the start", "KL (nats / token)", [("policy/kl", "", VERMILION)]),
    ("Policy accuracy (not trained on)", "accuracy", [("monitor/accuracy", "", PURPLE)]),
]
SHARES = {"accuracy", "AUROC"}  # drawn from 0 to 1, so that panels are comparable


@dataclass(frozen=True)
class Curve:
    """A line in the reranking figures."""

    key: str  # in metrics.json
    label: str
    colour: str
    linestyle: str

    @property
    def style(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        marker = "o" if self.linestyle == "-" else None  # markers would hide the dashes between them
        return {"color": self.colour, "linestyle": self.linestyle, "marker": marker, "markersize": 3}


# One per method that chooses among samples, and the majority vote weighted by the reward.
CURVES = [
    Curve(f"curve/{name}", BY_NAME[name].label, PALETTE[BY_NAME[name].colour], BY_NAME[name].linestyle)
    for name in CHOOSING
]
CURVES.insert(
    CHOOSING.index("majority") + 1, Curve("curve/reward/weighted_majority", "reward-weighted vote", BLUE, "-.")
)
RELIABILITY = {"reward": "o", "logprob": "s"}  # methods in the reliability diagram, with their markers


def read_jsonl(path: Path) -> list[Row]:
    """Reads a file with one JSON object per line; skips blank lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def points(rows: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, from the rows that have it."""
    held = [row for row in rows if row.get(metric) is not None]
    return [row["step"] for row in held], [row[metric] for row in held]


def moving_mean(values: Sequence[float]) -> NDArray[np.float64]:
    """(N,) The mean of each value and its neighbours, a tenth of all in all; fewer at the ends."""
    half = len(values) // 20
    return np.array([np.mean(values[max(0, at - half) : at + half + 1]) for at in range(len(values))])


def shade_skipped(axes: Axes, rows: Sequence[Row]) -> bool:
    """Shades the steps without a policy update, half a step to either side; returns whether there are any."""
    bars = [(row["step"] - 0.5, 1.0) for row in rows if row.get("policy/skipped")]
    axes.broken_barh(
        bars, (0, 1), transform=axes.get_xaxis_transform(), color="#DDDDDD", linewidth=0, antialiased=False, zorder=0
    )
    return bool(bars)


def training_curves(rows: Sequence[Row], folder: Path, guard: float | None = None) -> list[Path]:
    """Small multiples over training steps, without the panels whose metrics are missing from the log.

    `guard` is the AUROC below which policy steps are skipped.
    """
    panels = [
        (title, unit, drawn)
        for title, unit, lines in PANELS
        if (drawn := [line for line in lines if points(rows, line[0])[0]])
    ]
    if not panels:
        return []
    columns = 4 if len(panels) in (4, 7, 8) else min(3, len(panels))  # leaves the fewest empty cells
    height = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        height, columns, figsize=(PANEL[0] * columns, PANEL[1] * height), squeeze=False, layout="constrained"
    )
    first, last = min(row["step"] for row in rows), max(row["step"] for row in rows)
    shaded = False
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.set_visible(False)
            continue
        title, unit, lines = panels[index]
        shaded = shade_skipped(axes, rows)
        for metric, label, colour in lines:
            steps, values = points(rows, metric)
            axes.plot(steps, values, color="#CCCCCC", linewidth=0.8)
            axes.plot(steps, moving_mean(values), color=colour, label=label, marker="o" if len(steps) == 1 else None)
        if guard is not None and lines[0][0] == GUARDED:
            axes.axhline(guard, color=GREY, linestyle=":", label="guard")
        axes.set_title(title, loc="left")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(first - 0.5, last + 0.5)
        if unit in SHARES:
            axes.set_ylim(-0.03, 1.03)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower center", ncols=3, handlelength=1.0, columnspacing=1.0)
        if index + columns >= len(panels):  # the lowest panel of its column
            axes.set_xlabel("training step")
    if shaded:
        figure.supxlabel("grey: steps without a policy update", fontsize=8, color="#555555")
    return save(figure, folder, "training_curves")


def reward_distributions(traces: Sequence[Row], folder: Path) -> list[Path]:
    """Histograms of the scores of test traces, right against wrong, each normalised to sum to 1.

    Scores beyond the range of 98 % are in the first and the last bar, so that a few do not squeeze all others.
    """
    scored = [t for t in traces if t.get("score") is not None and t.get("split") != "validation"]
    scores = {right: [trace["score"] for trace in scored if trace.get("correct") is right] for right in (True, False)}
    if not scores[True] and not scores[False]:
        return []
    low, high = np.quantile(scores[True] + scores[False], [0.01, 0.99])
    edges = np.histogram_bin_edges([low, high], bins=30).tolist()
    figure, axes = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
    for right, label, colour, hatch in ((True, "right", RIGHT, ""), (False, "wrong", WRONG, "////")):
        held = np.clip(scores[right], low, high)
        if len(held):
            weights = np.full(len(held), 1 / len(held))
            axes.hist(
                held,
                edges,
                weights=weights,
                label=f"{label} ({len(held):,})",
                color=colour,
                alpha=0.45,
                hatch=hatch,
                edgecolor=colour,
                linewidth=0,
            )
            axes.hist(held, edges, weights=weights, histtype="step", color=colour, linewidth=1.3)
    axes.set_xlabel("trace score (reward); the end bars hold what is beyond")
    axes.set_ylabel("share of right (wrong) traces")
    axes.legend(title="traces")
    return save(figure, folder, "reward_distributions")


def number_of_samples(axes: Axes, ns: Sequence[int]) -> None:
    """Makes the x axis that of the number of samples per problem, on a log scale."""
    axes.set_xscale("log", base=2)
    ticks = [n for n in ns if n == ns[-1] or n & (n - 1) == 0]  # labels for every n would overlap
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("samples per problem, n")


def rerank_vs_n(metrics: dict[str, Any], folder: Path) -> list[Path]:
    """Accuracy when one of n samples is chosen, against n; one line per method of choosing."""
    ns = metrics.get("curve/n")
    drawn = [curve for curve in CURVES if metrics.get(curve.key)]
    if not ns or not drawn:
        return []
    figure, axes = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
    for curve in drawn:
        axes.plot(ns, metrics[curve.key], label=curve.label, **curve.style)
    number_of_samples(axes, ns)
    axes.set_ylabel("share of problems answered right")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.4)
    return save(figure, folder, "rerank_vs_n")


def calibration(metrics: dict[str, Any], folder: Path) -> list[Path]:
    """Reliability diagram: share of right traces against calibrated probability, with 95 % intervals."""
    drawn = [name for name in RELIABILITY if metrics.get(f"calibration/{name}/bin_count")]
    if not drawn:
        return []
    figure, axes = plt.subplots(figsize=(3.4, 2.8), layout="constrained")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (1, 1.5)))
    for method in drawn:
        colour, marker, label = PALETTE[BY_NAME[method].colour], RELIABILITY[method], BY_NAME[method].label
        keys = (
            f"calibration/{method}/bin_{key}" for key in ("confidence", "accuracy", "accuracy_low", "accuracy_high")
        )
        points = [row for row in zip(*(metrics[key] for key in keys), strict=True) if None not in row]
        x, y, low, high = zip(*points, strict=True)
        bars = [[b - a for a, b in zip(low, y, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
        ece = metrics.get(f"{method}/ece")
        label = label if ece is None else f"{label}, ECE {ece:.3f}"
        axes.errorbar(
            x, y, np.clip(bars, 0, None), color=colour, marker=marker, markersize=3.5, elinewidth=0.8, label=label
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("calibrated probability of being right")
    axes.set_ylabel("share of traces that are right")
    axes.legend(loc="upper left")
    return save(figure, folder, "calibration")


def reward_by_position(metrics: dict[str, Any], folder: Path) -> list[Path]:
    """Mean token reward in each tenth of a trace, right against wrong, with 95 % intervals."""
    figure, axes = plt.subplots(figsize=(3.4, 2.8), layout="constrained")
    for kind, colour, marker in (("right", RIGHT, "o"), ("wrong", WRONG, "s")):
        keys = (f"position/reward/{kind}{end}" for end in ("", "_low", "_high"))
        lists = [metrics.get(key) or [] for key in keys]
        rows = [(at, *row) for at, row in enumerate(zip(*lists, strict=True)) if None not in row]
        if rows:
            parts, means, low, high = zip(*rows, strict=True)
            x = [100 * (part + 0.5) / len(lists[0]) for part in parts]
            axes.plot(x, means, color=colour, marker=marker, markersize=3, label=kind)
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if not axes.has_data():
        return []
    axes.set_xlim(0, 100)
    axes.set_xlabel("position in the trace (% of its tokens)")
    axes.set_ylabel("mean token reward")
    axes.legend(title="traces")
    return save(figure, folder, "reward_by_position")


def first_wrong_step(metrics: dict[str, Any], folder: Path) -> list[Path]:
    """hit@1 of the first wrong step by method, for planted and natural errors, with 95 % intervals."""
    sources = [s for s in ("planted", "natural") if metrics.get(f"reward/first_error_hit@1/{s}") is not None]
    if not sources:
        return []
    methods = [m for m in LOCATING if any(metrics.get(f"{m}/first_error_hit@1/{s}") is not None for s in sources)]
    width = 0.8 / len(methods)
    figure, axes = plt.subplots(figsize=(4.6, 2.9), layout="constrained")
    axes.grid(visible=False, axis="x")
    for row, method in enumerate(methods):
        colour = PALETTE[BY_NAME[method].colour]
        style: dict[str, Any] = {"color": colour}
        if BY_NAME[method].output == Output.step:  # rules that do not read the text
            style = {"facecolor": "white", "edgecolor": colour, "hatch": "////"}
        elif BY_NAME[method].linestyle != "-":  # combinations of methods
            style |= {"alpha": 0.55}
        names = [f"{method}/first_error_hit@1/{source}" for source in sources]
        known = [(at, metrics[name], name) for at, name in enumerate(names) if metrics.get(name) is not None]
        for at, value, name in known:
            low, high = (metrics.get(f"{name}/{end}") for end in ("low", "high"))
            bar = None if low is None or high is None else [[max(0.0, value - low)], [max(0.0, high - value)]]
            place = at + (row - (len(methods) - 1) / 2) * width
            label = BY_NAME[method].label if at == known[0][0] else None
            axes.bar(place, value, 0.9 * width, yerr=bar, error_kw={"elinewidth": 0.8}, label=label, **style)
    axes.set_xticks(range(len(sources)), [f"{metrics[f'n_{source}']:,} {source} errors" for source in sources])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("first wrong step found (hit@1)")
    figure.legend(loc="outside upper center", ncols=3)
    return save(figure, folder, "first_wrong_step")


def guard_of(run_dir: Path) -> float | None:
    """The AUROC below which a run skips policy steps; None if it has no guard."""
    guard = load_run_config(run_dir).get("guard") if (run_dir / CONFIG_FILE).is_file() else None
    return guard.min_auroc if guard and guard.enabled else None


def plot_run(run_dir: Path) -> list[Path]:
    """Draws every figure that the run has data for; returns the files written.

    Raises FileNotFoundError if the run has no traces.jsonl.
    """
    use_style()
    folder = run_dir / "figures"
    drawings: list[tuple[str, str, Callable[[Any, Path], list[Path]]]] = [
        ("training_curves", "train_log.jsonl", partial(training_curves, guard=guard_of(run_dir))),
        ("reward_distributions", "traces.jsonl", reward_distributions),
        ("rerank_vs_n", "metrics.json", rerank_vs_n),
        ("calibration", "metrics.json", calibration),
        ("reward_by_position", "metrics.json", reward_by_position),
        ("first_wrong_step", "metrics.json", first_wrong_step),
    ]
    if not (run_dir / "traces.jsonl").exists():
        raise FileNotFoundError(f"{run_dir / 'traces.jsonl'} is missing: evaluate the run first")
    written: list[Path] = []
    for name, source, draw in drawings:
        path = run_dir / source
        if not path.exists():
            print(f"{name}: skipped, {path} is missing")
            continue
        files = draw(read_jsonl(path) if path.suffix == ".jsonl" else json.loads(path.read_text("utf-8")), folder)
        plt.close("all")
        written += files
        if not files:
            print(f"{name}: skipped, {path} has no data for it")
    print(f"{len(written)} files in {folder}")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Draws the figures of one run into RUN_DIR/figures.")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    try:
        plot_run(parser.parse_args().run_dir)
    except FileNotFoundError as error:
        print(f"plot_run: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
