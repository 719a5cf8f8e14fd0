"""The programs, each a subcommand of `reasoning-irl` and a script of the repository, and how messages name them."""

import sys
from typing import NamedTuple

CONSOLE = "reasoning-irl"


class Program(NamedTuple):
    subcommand: str
    script: str  # what follows `python` at the top of the repository
    module: str  # has main()
    about: str


PROGRAMS = (
    Program("train", "irl_train.py", "reasoning_irl.cli.irl_train", "learn a reward and a policy from demonstrations"),
    Program("sft", "sft_train.py", "reasoning_irl.cli.sft_train", "fine-tune on the same demonstrations"),
    Program("grpo", "train.py", "reasoning_irl.cli.train", "train a policy on verifiable rewards"),
    Program("evaluate", "evaluate.py", "reasoning_irl.cli.evaluate", "sample a run's policy on test problems"),
    Program("score", "evaluate_irl.py", "reasoning_irl.cli.evaluate_irl", "score samples with a run's reward model"),
    Program("export", "-m reasoning_irl.export", "reasoning_irl.export", "write a reward model for transformers alone"),
)


def command(script: str) -> str:
    """How to start a program the way that this one was started: by `reasoning-irl`, or by its script."""
    program = next(program for program in PROGRAMS if program.script == script)
    return f"{CONSOLE} {program.subcommand}" if sys.argv[0].startswith(CONSOLE) else f"python {script}"
