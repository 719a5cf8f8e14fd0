"""Two processes (gloo, on a CPU) against one: the same weights, traces and metrics, and files that are written once."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from reasoning_irl.training import jobs
from reasoning_irl.utils.errors import UserError
from tests.eval.conftest import run_dir  # noqa: F401 (a fixture)
from tests.helpers import job_of_two
from tests.helpers.commands import REPOSITORY, environment
from tests.helpers.configs import TINY
from tests.helpers.traces import read_rows

# Adding a constant to all logits changes neither of these losses: its gradient is noise, which Adam makes a step of.
FREE_BIAS = {"wgan": "backbone.score.bias", "pairwise": "backbone.score.bias"}


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start_two(folder: Path, run: Path) -> list[subprocess.Popen[str]]:
    """The processes as torchrun starts them, without its own start-up time.

    They write to files: one that waits for a full pipe would hold the other.
    """
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.job_of_two", folder, run],
            cwd=REPOSITORY,
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=(folder / f"out-{rank}.txt").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def assert_equal_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], left_out: str | None = None) -> None:
    for name in a.keys() - {left_out}:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def metrics_of(folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if "second" not in key and key != "choice/reward/traces"}


@pytest.mark.long
def test_two_processes_do_what_one_does(tmp_path: Path, run_dir: Path) -> None:  # noqa: F811
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    started = start_two(two, run_dir)
    job_of_two.run_shared(one, run_dir)
    for rank, process in enumerate(started):
        assert process.wait(timeout=300) == 0, (two / f"out-{rank}.txt").read_text()

    # The discriminator alone, with each loss.
    for loss in job_of_two.LOSSES:
        alone, main, other = (torch.load(folder / f"{loss}-{r}.pt") for folder, r in ((one, 0), (two, 0), (two, 1)))
        assert all(torch.equal(main[name], other[name]) for name in main)
        assert_equal_weights(alone, main, FREE_BIAS.get(loss))

    # AIRL on the same samples, with replay, guard and warm-up: both models, and what is logged.
    for part in ("", "reward_model/"):
        alone, shared = (load_file(folder / f"known/checkpoint-5/{part}model.safetensors") for folder in (one, two))
        assert_equal_weights(alone, shared)
    logs = [read_rows(folder / "known/train_log.jsonl") for folder in (one, two)]
    assert len(logs[0]) == len(logs[1]) == 1 + job_of_two.N_STEPS
    for alone, shared in zip(*logs, strict=True):
        assert alone.keys() == shared.keys()
        for name in alone:
            if "second" not in name and "time" not in name:
                assert shared[name] == pytest.approx(alone[name], abs=1e-4), name

    # Both evaluations.
    for folder in ("sampled", "scored"):
        alone, shared = (out / "evaluation" / folder for out in (one, two))
        assert (alone / "traces.jsonl").read_bytes() == (shared / "traces.jsonl").read_bytes()
        assert metrics_of(alone) == metrics_of(shared)
        assert sorted(path.name for path in alone.iterdir()) == sorted(path.name for path in shared.iterdir())

    # A resumed run is the one that was not cut, and another number of processes cannot go on from it.
    straight, resumed = two / "straight", two / "resumed"
    for name in ("model.safetensors", "reward_model/model.safetensors"):
        assert (straight / "checkpoint-4" / name).read_bytes() == (resumed / "checkpoint-4" / name).read_bytes()
    assert (straight / "completions.jsonl").read_bytes() == (resumed / "completions.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"saved by 2 processes.*start 2"):
        job_of_two.airl(resumed, "training.max_steps=4", "training.save_steps=2", "training.resume=true")

    # The baselines; each step has one row, and each checkpoint the random states of both processes.
    for job in ("sft", "grpo"):
        assert [row["step"] for row in read_rows(two / job / "train_log.jsonl")] == [1, 2]
        assert {path.name for path in (two / job / "checkpoint-2").glob("rng*")} == {
            "rng_state_0.pth",
            "rng_state_1.pth",
        }


def running(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(launcher.pid).children(recursive=True)


@pytest.mark.long
def test_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["irl_train.py", *TINY, *job_of_two.AIRL, f"training.output_dir={run}", "training.max_steps=100000"]
    words += ["training.per_device_train_batch_size=4", "training.save_steps=100000"]
    output = tmp_path / "out.txt"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port", free_port(), *words],
        cwd=REPOSITORY,
        env=environment(),
        stdout=output.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = run / jobs.TRAIN_LOG
    while launcher.poll() is None and not (log.is_file() and len(read_rows(log)) > 2):
        time.sleep(0.2)
    assert launcher.poll() is None, output.read_text()
    processes = running(launcher)
    second = next(p for p in processes if p.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    assert launcher.wait(timeout=60) != 0
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    printed = output.read_text()
    assert printed.count("adversarial IRL (demonstrations)") == 1  # only the main process prints
