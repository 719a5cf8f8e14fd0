"""Times the parts that matter against a reference, and prints the table of docs/performance.md.

    python -m benchmarks [--only NAME ...] [--json FILE] [--baseline FILE]

With --baseline, exits with 1 if a ratio is worse than in that file by 15 %, or a peak of memory by 2 %. Seconds are not
compared: they are those of a machine and of what else it does, while both sides of a ratio share these.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import evaluation, start_up, step, update, vocabulary
from benchmarks.measure import Figure, Size, Unit

COMPARISONS: dict[str, Callable[[Size], list[Figure]]] = {
    "start-up": start_up.figures,
    "update": update.figures,
    "step": step.figures,
    "scoring": evaluation.scoring,
    "sampling": evaluation.sampling,
    "vocabulary": vocabulary.figures,
}
# How much worse a figure may get.
SLACK = {Unit.ratio: 0.15, Unit.memory: 0.02}


def about() -> dict[str, str]:
    """What was run, when, and on what."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    return {
        "command": f"OMP_NUM_THREADS={torch.get_num_threads()} python -m benchmarks {shlex.join(sys.argv[1:])}".strip(),
        "commit": commit,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")  # Linux
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(about: dict[str, str], figures: Sequence[Figure]) -> str:
    """Markdown."""
    where = f"{about['machine']}, {about['threads']} thread(s), torch {about['torch']}"
    lines = [
        f"`{about['command']}`, {about['date']}, at {about['commit']}, {where}:",
        "",
        "| | | goal |",
        "|---|---|---|",
    ]
    for figure in figures:
        value = f"{figure.value:.0f} MiB" if figure.unit == Unit.memory else f"{figure.value:.2f}"
        goal = "" if figure.goal is None else f"{'≥' if figure.unit == Unit.ratio else '≤'} {figure.goal:g}"
        lines.append(
            f"| {figure.name} | {value}{' s' if figure.unit == Unit.seconds else ''} | "
            f"{goal}{'' if figure.is_met else ', **missed**'} |"
        )
    return "\n".join(lines)


def worse(figures: Sequence[Figure], baseline: Sequence[Figure]) -> list[str]:
    """One line for each ratio and peak that is worse than in the baseline by more than its slack."""
    before = {figure.name: figure.value for figure in baseline}
    found = []
    for figure in figures:
        if figure.unit not in SLACK or figure.name not in before:
            continue
        change = figure.value / before[figure.name] - 1
        if (-change if figure.unit == Unit.ratio else change) > SLACK[figure.unit]:
            found.append(f"{figure.name}: {figure.value:.2f}, was {before[figure.name]:.2f}")
    return found


def read(path: Path) -> list[Figure]:
    return [Figure(**row | {"unit": Unit(row["unit"])}) for row in json.loads(path.read_text())["figures"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS))
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmarks.json"))
    parser.add_argument("--baseline", type=Path, help="the JSON file of an earlier call")
    given = parser.parse_args()
    baseline = read(given.baseline) if given.baseline else []  # now, as the new file may take its place
    figures: list[Figure] = []
    for name in given.only:
        print(f"{name} ...", file=sys.stderr)
        figures += COMPARISONS[name](Size())
    given.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"about": about(), "figures": [asdict(figure) for figure in figures]}
    given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(about(), figures))
    if found := worse(figures, baseline):
        sys.exit("worse than in the baseline:\n  " + "\n  ".join(found))


if __name__ == "__main__":
    main()
