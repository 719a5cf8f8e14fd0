"""Prints the ablations of a folder as a table, and below it one of them against its baselines.

    python figures/ablation_table.py FOLDER [--row NAME]

FOLDER has an evaluated run NAME_seedN for each ablation and seed, as runner_scripts/ablations.py leaves them.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, only figures/ is on the path
from figures.tables import MISSING, change, known, markdown, number
from reasoning_irl.eval.reports.tables import with_aliases
from reasoning_irl.eval.scoring.methods import BASELINES, REWARD
from reasoning_irl.metrics.student_t import t_interval
from reasoning_irl.metrics.summary import Metrics, read_metrics
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import METRICS_FILE

DEFAULT = "default"  # the ablation that the others are compared with
# Heading: a metric of any method.
OF_METHOD = {
    "best of 8": "rerank@1|8",
    "within a problem": "auroc_within_prompt",
    "natural first errors": "first_error_hit@1/natural",
    "ProcessBench F1": "processbench_f1/natural",
    "token AUROC": "first_error_token_auroc/natural",
}
COLUMNS = {heading: f"{REWARD}/{metric}" for heading, metric in OF_METHOD.items()}
COLUMNS |= {"pass@1": "pass@1", "pass@8": "pass@8"}
ABOUT = (
    "Means over seeds; in parentheses, the mean paired {difference}, over the seeds that have both, with its 95 % "
    "t-interval (not corrected for multiple comparisons). n: seeds with the value or the pair, if not all."
)
Seeds = Mapping[int, Metrics]  # the metrics of an ablation by seed


def read_runs(folder: Path) -> dict[str, Seeds]:
    """The evaluated runs of a folder by ablation, the default first. Raises UserError if there are none."""
    runs: dict[str, dict[int, Metrics]] = {}
    for path in folder.glob(f"*/{METRICS_FILE}"):
        if named := re.fullmatch(r"(.+)_seed(\d+)", path.parent.name):
            runs.setdefault(named[1], {})[int(named[2])] = with_aliases(read_metrics(path))
    if not runs:
        raise UserError(f"{folder} has no evaluated run NAME_seedN: evaluate.py writes the metrics of a run")
    return {name: runs[name] for name in sorted(runs, key=lambda name: (name != DEFAULT, name))}


def ablation_table(runs: Mapping[str, Seeds]) -> str:
    """The reward and the policy of each ablation; all but the default with their difference from it."""
    rows = []
    for name, seeds in runs.items():
        cells = []
        for metric in COLUMNS.values():
            values = known(seeds, metric)
            minus = known(runs[DEFAULT], metric) if name != DEFAULT and DEFAULT in runs else {}
            pairs = [values[seed] - minus[seed] for seed in values if seed in minus]
            cells.append(cell(list(values.values()), pairs, len(seeds)))
        rows.append([name, str(len(seeds)), *cells])
    return markdown(["ablation", "seeds", *COLUMNS], rows)


def baseline_table(seeds: Seeds) -> str:
    """The reward of an ablation and its baselines on the same traces, each with the reward minus the baseline."""
    rows = []
    for method in (REWARD, *BASELINES):
        cells = []
        for metric in OF_METHOD.values():
            values, reward = known(seeds, f"{method}/{metric}"), known(seeds, f"{REWARD}/{metric}")
            pairs = [reward[seed] - values[seed] for seed in values if seed in reward and method != REWARD]
            cells.append(cell(list(values.values()), pairs, len(seeds)))
        if set(cells) != {MISSING}:
            rows.append([method, *cells])
    return markdown(["method", *OF_METHOD], rows)


def cell(values: Sequence[float], pairs: Sequence[float], n_seeds: int) -> str:
    """The mean of the values and, in parentheses, that of the paired differences; their numbers if not `n_seeds`."""
    if not values:
        return number(None)
    mean = number(statistics.fmean(values)) + _count(values, n_seeds)
    if not pairs:
        return mean
    # One pair has no interval.
    difference = change(*t_interval(pairs)) if len(pairs) > 1 else change(pairs[0])
    return f"{mean} ({difference}{_count(pairs, n_seeds)})"


def _count(values: Sequence[float], n_seeds: int) -> str:
    return "" if len(values) == n_seeds else f", n={len(values)}"


def report(folder: Path, row: str | None = None) -> str:
    """Both tables with their captions, the second for the ablation `row`; None is the default, if it was run.

    Raises UserError if the folder has no evaluated run, or none of `row`.
    """
    runs = read_runs(folder)
    if row is not None and row not in runs:
        raise UserError(f"{folder} has no ablation {row}: choose from {', '.join(runs)}")
    about = ABOUT.format(difference=f"difference from {DEFAULT}")
    parts = [f"{about} Each reward is measured on the samples of its own policy.", ablation_table(runs)]
    chosen = row or (DEFAULT if DEFAULT in runs else None)
    if chosen:
        about = ABOUT.format(difference="difference of the reward minus the baseline")
        parts += [f"The reward of {chosen} and its baselines. {about}", baseline_table(runs[chosen])]
    return "\n".join(f"{part.rstrip()}\n" for part in parts).rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Prints the ablations of a folder, and one against its baselines.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--row", help=f"the ablation to compare with its baselines; {DEFAULT} if not given")
    arguments = parser.parse_args()
    try:
        print(report(arguments.folder, arguments.row))
    except UserError as error:
        print(f"ablation_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
