"""Runs the ablations of the embedded task over seeds, then prints their table.

    python runner_scripts/ablations.py --seeds 0 1 2 3 4 [--only PATTERN]

All runs of a seed go on from one warm start, and are compared with one SFT on the same experts. They are in
outputs/ablations, each with a log beside it. Finished commands are skipped and a killed training starts anew, so it can
be started again at any time. A failure does not stop the other runs; the exit code is then 1.
"""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, only runner_scripts/ is on the path
from figures.ablation_table import DEFAULT, report
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import CONFIG_FILE, METRICS_FILE, TRACES_FILE, find_checkpoint
from runner_scripts.reproduce import (
    EVALUATED,
    ROOT,
    Command,
    composed,
    has_last_checkpoint,
    metrics_of,
    shown,
)

OUT = Path("outputs/ablations")
SFT_STEPS = 160  # ten passes, as in the quickstart: chosen by pass@1 (docs/log.md)
SFT = "sft"  # the name of the run that warm-starts a seed and then imitates its experts
# The first value of each is the default's.
GRID = {
    "discriminator_logit": ("token", "additive"),
    "classifier_loss": ("bce", "pairwise", "wgan"),
    "reward_granularity": ("dense", "step", "sparse"),
}
UNDISCOUNTED = "model.dense_gamma=1.0"
# Overrides of config_irl_train. The untrained reward needs no run: every evaluation has it as `frozen`.
ABLATIONS: dict[str, list[str]] = {
    DEFAULT: [],
    **{
        "_".join(values): [f"model.{key}={value}" for key, value in zip(GRID, values, strict=True)]
        for values in list(product(*GRID.values()))[1:]
    },
    **{
        f"{logit}_undiscounted": [f"model.discriminator_logit={logit}", UNDISCOUNTED]
        for logit in GRID["discriminator_logit"]
    },
    **{
        f"{logit}_airl_undiscounted": [f"model.discriminator_logit={logit}", UNDISCOUNTED, "model.reward_form=airl"]
        for logit in GRID["discriminator_logit"]
    },
    "with_expert": ["model.add_expert_to_policy_optim=true"],
    "plain_head": ["model.reward_head=plain", "model.reward_lm_coef=0"],
    "no_edits": ["model.num_neg_perturbations_per_expert=0", "model.reward_warmup_steps=0"],
    "no_replay": ["model.replay_buffer_size=0"],
}
# Results depend on the number of threads. The environment may set another.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def folder_of(name: str, seed: int) -> Path:
    return OUT / f"{name}_seed{seed}"


def sft_command(seed: int) -> Command:
    """The command that makes the warm start of a seed, and from it the SFT on the same experts."""
    folder, steps = folder_of(SFT, seed), f"training.max_steps={SFT_STEPS}"
    words = [f"seed={seed}", f"training.output_dir={folder}", "warm_start.enabled=true", steps]
    # Only the last checkpoint: a killed run starts anew.
    words.append(f"training.save_steps={SFT_STEPS}")
    is_done = has_last_checkpoint(folder, composed("config_sft_train", steps))
    return Command("train", folder, ["sft_train.py", *words], is_done)


def commands_of(name: str, seed: int) -> list[Command]:
    """The training of an ablation and its two evaluations, each with whether it is done.

    A command is done if a later one is: a finished run may have lost its checkpoints to save space.
    """
    folder, sft, metrics = folder_of(name, seed), folder_of(SFT, seed), metrics_of(folder_of(name, seed))
    is_scored = EVALUATED["evaluate_irl"] in metrics
    # A run of an older version has metrics before its traces.
    is_sampled = is_scored or (EVALUATED["evaluate"] in metrics and (folder / TRACES_FILE).is_file())
    is_trained = is_sampled or has_last_checkpoint(folder, composed("config_irl_train"))
    train = [f"seed={seed}", f"training.output_dir={folder}", "warm_start.enabled=false"]
    train += [f"model.checkpoint={sft / 'warm_start'}", *ABLATIONS[name]]
    run = f"run_dir={folder}"
    return [
        Command("train", folder, ["irl_train.py", *train], is_trained),
        Command("evaluate", folder, ["evaluate.py", run], is_sampled),
        Command("evaluate_irl", folder, ["evaluate_irl.py", run, f"model.sft_path={sft}"], is_scored),
    ]


def run_seed(seed: int, names: Sequence[str]) -> Iterator[str]:
    """Runs what is not done of these ablations of a seed; yields a line for each failure."""
    to_do = [name for name in names if not all(command.is_done for command in commands_of(name, seed))]
    # The start is made only if a run needs it: it may be gone once all runs are done.
    if to_do and (failed := finish(folder_of(SFT, seed), lambda: [sft_command(seed)])):
        yield f"{failed}; so no ablation of seed {seed} was run"
        return
    for name in names:
        if failed := finish(folder_of(name, seed), partial(commands_of, name, seed)):
            yield failed


def finish(folder: Path, commands: Callable[[], Sequence[Command]]) -> str | None:
    """Runs the commands of a run folder that are not done, one line each; returns the first that failed, as a line.

    `commands` is called when no other process is at work on the folder.
    """
    log_file = OUT / f"{folder.name}.log"
    with locked(log_file) as log:
        for command in commands():
            start, is_ok = time.perf_counter(), True
            if not command.is_done:
                if command.kind == "train":
                    remove_unfinished(command)
                print(f"== {shown(command)}", file=log, flush=True)
                is_ok = run(command.arguments, log)
            result = "done" if command.is_done else "ok" if is_ok else "FAILED"
            seconds = time.perf_counter() - start
            print(f"{result:<6} {seconds:5.0f} s  {folder.name}  {command.arguments[0]}", flush=True)
            if not is_ok:
                return f"{shown(command)}: see {log_file}"
    return None


@contextmanager
def locked(log_file: Path) -> Iterator[TextIO]:
    """Opens a log to append to, for one process at a time and as long as a command writes to it.

    The commands inherit the lock. If only this script is killed, the next one waits for the command that still runs,
    and does not take its folder for that of a killed one.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a", encoding="utf-8") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the process that writes {log_file}", flush=True)
            fcntl.flock(log, fcntl.LOCK_EX)
        yield log


def run(arguments: Sequence[str], log: TextIO) -> bool:
    """Runs a script of the repository with this Python; returns whether it succeeded."""
    command = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
    done = subprocess.run(
        command,
        env={**ENVIRONMENT, **os.environ},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode == 0


def remove_unfinished(training: Command) -> None:
    """Removes what a killed training left, so that it can start anew; keeps any finished checkpoint and any result."""
    folder = training.run_dir
    is_kept = find_checkpoint(folder) is not None or any(
        (folder / name).is_file() for name in (METRICS_FILE, TRACES_FILE)
    )
    if (folder / CONFIG_FILE).is_file() and not is_kept:
        shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs the ablations of the embedded task, then prints their table.")
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--only", default="", help="only ablations whose name has this regular expression")
    arguments = parser.parse_args(argv)
    try:
        names = [name for name in ABLATIONS if re.search(arguments.only, name)]
    except re.error as error:
        parser.error(f"--only {arguments.only} is no regular expression: {error}")
    if not names:
        parser.error(f"no ablation has {arguments.only} in its name: choose from {', '.join(ABLATIONS)}")
    failed = [line for seed in arguments.seeds for line in run_seed(seed, names)]
    try:
        print(f"\n{report(OUT)}")
    except UserError as error:  # nothing was evaluated
        print(error)
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
