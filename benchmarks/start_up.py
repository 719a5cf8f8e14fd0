"""How long a script takes to answer, against importing Hydra alone."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.measure import Figure, Size, Unit, medians
from reasoning_irl.config.compose import CONFIGS

REPEATS = 5
COMMANDS = {
    "import hydra": ["-c", "import hydra"],
    "irl_train.py --help": ["irl_train.py", "--help"],
    "irl_train.py --cfg job": ["irl_train.py", "--cfg", "job"],
}


def figures(size: Size) -> list[Figure]:
    repeats = min(REPEATS, 2 * size.repeats - 1)
    sides: dict[str, Callable[[], object]] = {name: partial(_run, command) for name, command in COMMANDS.items()}
    seconds = medians(sides, repeats)
    reference = seconds.pop("import hydra")
    return [
        Figure("import hydra", reference, Unit.seconds),
        *(Figure(name, value, Unit.seconds, goal=1.2) for name, value in seconds.items()),
        *(Figure(f"import hydra / {name}", reference / value, Unit.ratio) for name, value in seconds.items()),
    ]


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=CONFIGS.parent)
