"""Tables and figures for a paper, from run folders: `python figures/plot_main.py RUN [RUN ...] --out DIR`.

A run folder must have been evaluated by evaluate.py and, for figures of the reward, by evaluate_irl.py. Runs that
differ only in seed and names count as seeds of one method, and their results are averaged. Every row and legend states
the method's supervision (demonstrations or verifier).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, only figures/ is on the path
from figures.plot_run import CURVES, Row, number_of_samples, read_jsonl
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PANEL, PURPLE, RIGHT, SKY, VERMILION, WRONG, save, use_style
from figures.tables import latex, markdown, number
from reasoning_irl.eval.scoring.methods import TOKEN_METHODS
from reasoning_irl.metrics.bootstrap import two_level_bootstrap
from reasoning_irl.metrics.traces import pass_at_k, pearson
from reasoning_irl.utils.run_folder import CONFIG_FILE

COLOURS = [BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, GREY]
MARKERS = "osD^vP*X"
DRAWS = 1000
NAMES_AND_PLACES = ("seed", "wandb", "dataset.seed", "training.output_dir", "training.resume")
CORRELATED = ("correct", "score", "logprob", "length", "format_ok")
HEATMAPS = 3  # traces shown, of right and of wrong ones each
LINE_WIDTH = 72  # characters
UNDECLARED = "not declared"


@dataclass(frozen=True)
class Run:
    """One evaluated run folder."""

    folder: Path
    config: dict[str, Any]  # with dotted keys
    metrics: dict[str, Any]
    traces: list[Row]  # of test problems

    def right_by_problem(self) -> list[tuple[int, int]]:
        """(right samples, all samples) of each problem."""
        counts: dict[str, list[bool]] = {}
        for trace in self.traces:
            counts.setdefault(str(trace["id"]), []).append(bool(trace["correct"]))
        return [(sum(flags), len(flags)) for flags in counts.values()]


@dataclass(frozen=True)
class Method:
    """Runs that differ only in seed and names."""

    label: str
    runs: list[Run]

    @property
    def supervision(self) -> str:
        return str(self.runs[0].metrics.get("supervision", UNDECLARED))

    @property
    def legend(self) -> str:
        return self.label if self.supervision == UNDECLARED else f"{self.label} ({self.supervision})"

    def pass_at(self, k: int) -> tuple[float, float, float] | None:
        """Mean and 95 % interval of pass@k; None if a problem has fewer than k samples."""
        by_seed = [run.right_by_problem() for run in self.runs]
        if any(n < k for problems in by_seed for _, n in problems):
            return None
        values = [[pass_at_k(right, n, k) for right, n in problems] for problems in by_seed]
        return two_level_bootstrap(values, np.random.default_rng(0), DRAWS)

    def metric(self, name: str) -> tuple[float | None, float | None, float | None]:
        """A metric of metrics.json with its interval; for several runs, the mean with the lowest and highest value."""
        values = [run.metrics[name] for run in self.runs if run.metrics.get(name) is not None]
        if len(self.runs) == 1 or not values:
            metrics = self.runs[0].metrics
            return metrics.get(name), metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
        return float(np.mean(values)), min(values), max(values)


def read_run(folder: Path) -> Run:
    """Reads an evaluated run folder, or a folder within one that has samples of another policy.

    Raises FileNotFoundError if it has not been evaluated.
    """
    for name in ("metrics.json", "traces.jsonl"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: run evaluate.py run_dir={folder} first")
    own, of_run = folder / CONFIG_FILE, folder.parent / CONFIG_FILE
    config: Any = {"name": str(folder)}
    if own.is_file():
        config = OmegaConf.to_container(OmegaConf.load(own))
    elif of_run.is_file():
        config = {"samples": folder.name, "of": OmegaConf.to_container(OmegaConf.load(of_run))}
    traces = [row for row in read_jsonl(folder / "traces.jsonl") if row.get("split") != "validation"]
    labelled = [row for row in traces if row.get("correct") is not None]
    return Run(folder, flat(config), json.loads((folder / "metrics.json").read_text("utf-8")), labelled)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries to dotted keys."""
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}{name}.").items()}


def group_seeds(runs: Sequence[Run], labels: Sequence[str] | None) -> list[Method]:
    """Groups runs into methods, in the order of their first runs. `labels`, if given, has one label per method."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        rest = {k: value for k, value in run.config.items() if not k.removeprefix("of.").startswith(NAMES_AND_PLACES)}
        grouped.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(run)
    if labels and len(labels) != len(grouped):
        raise ValueError(f"{len(labels)} labels for {len(grouped)} methods: give one label per method, not per seed")
    names = labels or [run_label(members[0]) for members in grouped.values()]
    return [Method(name, members) for name, members in zip(names, grouped.values(), strict=True)]


def run_label(run: Run) -> str:
    """The run's name without a `_seedN` at its end."""
    name = str(run.config.get("wandb.run_name") or run.folder.name)
    base, _, tail = name.rpartition("_seed")
    return base if base and tail.isdigit() else name


def write_table(out: Path, name: str, head: list[str], rows: list[list[str]], caption: str) -> None:
    (out / f"{name}.md").write_text(f"{caption}\n\n{markdown(head, rows)}", encoding="utf-8")
    (out / f"{name}.tex").write_text(latex(head, rows, caption), encoding="utf-8")


def pass_table(methods: Sequence[Method], out: Path) -> None:
    """Writes pass@k as a table and as curves."""
    ks = sorted({int(k.removeprefix("pass@")) for m in methods for k in m.runs[0].metrics if k[5:].isdigit()})
    values = {(m.label, k): m.pass_at(k) for m in methods for k in ks}
    rows = [
        [m.label, m.supervision, str(len(m.runs)), *(number(*(values[m.label, k] or (None,))) for k in ks)]
        for m in methods
    ]
    caption = "pass@k on test problems, with 95 % bootstrap intervals over seeds and problems."
    write_table(out, "pass_at_k", ["method", "supervision", "seeds", *(f"pass@{k}" for k in ks)], rows, caption)
    figure, axes = plt.subplots(figsize=(4.2, 2.8), layout="constrained")
    for m, colour, marker in zip(methods, styles(COLOURS, methods), styles(MARKERS, methods), strict=True):
        points = [(k, value) for k in ks if (value := values[m.label, k]) is not None]
        xs = [k for k, _ in points]
        axes.plot(xs, [v[0] for _, v in points], color=colour, marker=marker, markersize=4, label=m.legend)
        axes.fill_between(xs, [v[1] for _, v in points], [v[2] for _, v in points], color=colour, alpha=0.15, lw=0)
    axes.set_xticks(ks)
    axes.set_xlabel("k")
    axes.set_ylabel("pass@k")
    below(axes)
    save(figure, out, "pass_at_k")


def styles(choices: Sequence[str], methods: Sequence[Method]) -> list[str]:
    return [choices[i % len(choices)] for i in range(len(methods))]


def below(axes: Any) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=1)


def panels(methods: Sequence[Method]) -> tuple[Any, list[Any]]:
    """One panel per method, at most two per row; unused panels are hidden."""
    columns = min(2, len(methods))
    height = -(-len(methods) // columns)
    size = (PANEL[0] * columns + 0.2, PANEL[1] * height + 0.2)
    figure, grid = plt.subplots(height, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(grid.flat, methods, strict=False):
        axes.set_title(method.legend)
    return figure, list(grid.flat[: len(methods)])


def rerank_curves(methods: Sequence[Method], out: Path) -> None:
    """Accuracy when one of n samples is chosen, against n, by the reward and by each baseline; one panel per method.

    Lines are means over seeds; bands, for the methods that read tokens, are the lowest and highest seed.
    """
    with_curves = [m for m in methods if m.runs[0].metrics.get("curve/reward")]
    if not with_curves:
        return
    figure, grid = panels(with_curves)
    handles: dict[str, Any] = {}
    for axes, method in zip(grid, with_curves, strict=True):
        ns = method.runs[0].metrics["curve/n"]
        for curve in CURVES:
            lines = [run.metrics[curve.key] for run in method.runs if len(run.metrics.get(curve.key) or []) == len(ns)]
            if lines:
                mean = np.mean(lines, axis=0)
                (handles[curve.label],) = axes.plot(ns, mean, **curve.style)
                if len(lines) > 1 and curve.key.removeprefix("curve/") in TOKEN_METHODS:
                    low, high = np.min(lines, axis=0), np.max(lines, axis=0)
                    axes.fill_between(ns, low, high, color=curve.colour, alpha=0.12, linewidth=0)
        number_of_samples(axes, ns)
        axes.set_ylabel("share right")
    if len(with_curves) == 1:  # there is room at the side
        figure.set_size_inches(5.2, 2.8)
        place: dict[str, Any] = {"loc": "outside right center"}
    else:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 1.2)  # the legend's lines
        place = {"loc": "outside lower center", "ncols": 3}
    figure.legend(handles.values(), handles.keys(), handlelength=2.4, **place)
    save(figure, out, "rerank_curves")


def reward_distributions(methods: Sequence[Method], out: Path) -> None:
    """Histograms of trace scores, right against wrong."""
    scored = [m for m in methods if any(t.get("score") is not None for t in m.runs[0].traces)]
    if not scored:
        return
    figure, grid = panels(scored)
    for axes, method in zip(grid, scored, strict=True):
        rows = [t for run in method.runs for t in run.traces if t.get("score") is not None]
        bins = np.histogram_bin_edges([row["score"] for row in rows], bins=30)
        for flag, colour, label, hatch in ((True, RIGHT, "right", None), (False, WRONG, "wrong", "///")):
            scores = [row["score"] for row in rows if bool(row["correct"]) == flag]
            if scores:
                axes.hist(scores, bins, density=True, histtype="stepfilled", alpha=0.5, color=colour, hatch=hatch)
                axes.hist(scores, bins, density=True, histtype="step", color=colour, label=f"{label} ({len(scores)})")
        axes.set_xlabel("trace score (reward)")
        axes.set_ylabel("density")
        axes.legend()
    save(figure, out, "reward_distributions")


def correlations(methods: Sequence[Method], out: Path) -> None:
    """Pearson correlations between properties of the traces; a dash if undefined, such as for a constant."""
    figure, grid = panels(methods)
    for axes, method in zip(grid, methods, strict=True):
        rows = [columns_of(trace) for run in method.runs for trace in run.traces]
        names = [name for name in CORRELATED if sum(row[name] is not None for row in rows) > 1]
        matrix = np.full((len(names), len(names)), np.nan)
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                both = np.array([(row[a], row[b]) for row in rows if None not in (row[a], row[b])], float).reshape(
                    -1, 2
                )
                value = pearson(both[:, 0], both[:, 1])
                matrix[i, j] = np.nan if value is None else value
                axes.text(j, i, "–" if value is None else f"{value:.2f}", ha="center", va="center", fontsize=7)
        axes.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False)
    save(figure, out, "correlations")


def columns_of(trace: Row) -> dict[str, float | None]:
    length = trace.get("token_ids") or trace.get("tokens")
    columns = {**trace, "length": len(length) if length else None}
    return {name: None if columns.get(name) is None else float(columns[name]) for name in CORRELATED}


def one_per_problem(rows: Iterable[Row]) -> list[Row]:
    """The first row of each of the first problems, as many as the heatmaps show."""
    by_problem: dict[str, Row] = {}
    for row in rows:
        by_problem.setdefault(str(row["id"]), row)
    return list(by_problem.values())[:HEATMAPS]


def heatmaps(methods: Sequence[Method], out: Path) -> None:
    """Right traces (left) and wrong ones, with tokens coloured by reward and the first wrong step underlined."""
    for index, method in enumerate(methods):
        rows = [t for t in method.runs[0].traces if t.get("token_rewards") and t.get("tokens")]
        columns = [one_per_problem(row for row in rows if bool(row["correct"]) == flag) for flag in (True, False)]
        chosen = [row for column in columns for row in column]
        if not chosen:
            continue
        # A quantile, because a few extreme values would make the rest pale.
        bound = max(1e-9, float(np.quantile([abs(value) for row in chosen for value in row["token_rewards"]], 0.95)))
        norm, colours = TwoSlopeNorm(0, -bound, bound), plt.get_cmap("PuOr")
        laid_out = {id(row): lay_out(row) for row in chosen}
        n_rows = max(map(len, columns))
        heights = [
            max(laid_out[id(column[i])][-1].line + 2 for column in columns if i < len(column)) for i in range(n_rows)
        ]
        figure, grid = plt.subplots(
            n_rows,
            2,
            figsize=(6.4, 0.13 * sum(heights) + 0.25 * n_rows + 0.3),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for i, j in np.ndindex(n_rows, 2):
            axes: Any = grid[i, j]
            axes.set_xlim(0, LINE_WIDTH)
            axes.set_ylim(heights[i], 0)
            axes.axis("off")
            if i < len(columns[j]):
                row = columns[j][i]
                step = row.get("first_error_step")
                where = "" if row["correct"] or step is None else f", first wrong step {step}"
                axes.set_title(
                    f"{row['id']}: {('wrong', 'right')[bool(row['correct'])]}{where}", loc="left", fontsize=7
                )
                for piece in laid_out[id(row)]:
                    draw_piece(axes, piece, colours(norm(np.clip(piece.reward, -bound, bound))))
        figure.suptitle(f"{method.legend}: low reward orange, high reward purple", fontsize=8)
        save(figure, out, f"heatmap_{index + 1}")


@dataclass(frozen=True)
class Piece:
    """The part of a token that is on one line."""

    text: str
    line: int
    column: int
    reward: float
    is_wrong: bool


def lay_out(row: Row) -> list[Piece]:
    """Wraps a trace's tokens to lines of LINE_WIDTH characters and marks the tokens of the first wrong step."""
    step, steps = row.get("first_error_step"), row.get("steps") or []
    wrong = steps[step - 1] if step and step <= len(steps) else ""
    start = row["completion"].find(wrong) if wrong else -1
    pieces, line, column, offset = [], 0, 0, 0
    for token, reward in zip(row["tokens"], row["token_rewards"], strict=True):
        for is_next, part in enumerate(token.split("\n")):
            if is_next or column + len(part) > LINE_WIDTH:
                line, column = line + 1, 0
            if part:
                is_wrong = start >= 0 and start <= offset < start + len(wrong)
                pieces.append(Piece(part[:LINE_WIDTH], line, column, reward, is_wrong))
                column += len(part)
        offset += len(token)
    return pieces or [Piece("", 0, 0, 0.0, False)]


def draw_piece(axes: Any, piece: Piece, colour: Any) -> None:
    width = len(piece.text)
    axes.add_patch(plt.Rectangle((piece.column, piece.line), width, 1, color=colour, lw=0))
    is_dark = np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.5
    ink = "white" if is_dark else BLACK
    axes.text(piece.column, piece.line + 0.75, piece.text, family="monospace", fontsize=5, color=ink, parse_math=False)
    if piece.is_wrong:
        axes.plot([piece.column, piece.column + width], [piece.line + 0.97] * 2, color=BLACK, lw=1)


def ablation_table(methods: Sequence[Method], out: Path) -> None:
    """Writes a table of how good the policy and the reward are, with one row per method."""
    shown = {
        "pass@1": "pass@1",
        "rerank": "reward/rerank@1|{n}",
        "AUROC": "reward/auroc",
        "within problem": "reward/auroc_within_prompt",
        "hit@1 planted": "reward/first_error_hit@1/planted",
        "hit@1 natural": "reward/first_error_hit@1/natural",
    }
    rows = []
    for m in methods:
        n = m.runs[0].metrics.get("n_rerank")
        cells = [number(*m.metric(name.format(n=n))) for name in shown.values()]
        rows.append([m.label, m.supervision, str(len(m.runs)), *cells])
    caption = "Ablations. In brackets: the 95 % interval over problems for one seed, the range over several seeds."
    write_table(out, "ablations", ["method", "supervision", "seeds", *shown], rows, caption)


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes tables and figures of evaluated runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", help="one name per method, in the order of their first runs")
    arguments = parser.parse_args()
    use_style()
    try:
        methods = group_seeds([read_run(folder) for folder in arguments.runs], arguments.labels)
    except (FileNotFoundError, ValueError) as error:
        print(f"plot_main: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    for draw in (pass_table, rerank_curves, reward_distributions, correlations, heatmaps, ablation_table):
        draw(methods, arguments.out)
        plt.close("all")
    print("\n".join(str(path) for path in sorted(arguments.out.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
