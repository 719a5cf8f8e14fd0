"""What ends a run early, and what is not learnt: SIGTERM and non-finite gradients, in the SFT job on a tiny model."""

import os
import signal
from pathlib import Path

import pytest
import torch

from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import newest_checkpoint
from tests.helpers.sft_runs import Train, at_step
from tests.helpers.traces import read_rows


def test_sigterm_saves_and_exits_with_its_own_code(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        at_step(patched, {3}, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            train("training.max_steps=5")
    assert ended.value.code == 143
    assert newest_checkpoint(tmp_path / "run").name == "checkpoint-3"
    assert signal.getsignal(signal.SIGTERM) is before
    assert [row["step"] for row in read_rows(tmp_path / "run/train_log.jsonl")] == [1, 2, 3]
    assert train("training.max_steps=5", "training.resume=true").name == "checkpoint-5"
    assert [row["step"] for row in read_rows(tmp_path / "run/train_log.jsonl")] == [1, 2, 3, 4, 5]


def test_sigterm_is_as_before_after_an_error(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a process that swallows SIGTERM for ever."""
    before = signal.getsignal(signal.SIGTERM)

    def fail(_: torch.nn.Module) -> None:
        raise ZeroDivisionError

    at_step(monkeypatch, {1}, fail)
    with pytest.raises(ZeroDivisionError):
        train("training.max_steps=2")
    assert signal.getsignal(signal.SIGTERM) is before


def test_intervals_may_change_when_a_run_is_resumed(train: Train, tmp_path: Path) -> None:
    """Trap: the library takes them from the checkpoint."""
    train("training.max_steps=2")
    train("training.max_steps=5", "training.resume=true", "training.save_steps=1", "training.logging_steps=2")
    saved = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert saved == [f"checkpoint-{step}" for step in (2, 3, 4, 5)]
    assert [row["step"] for row in read_rows(tmp_path / "run/train_log.jsonl")] == [1, 2, 4]


def test_weights_that_are_not_finite_are_never_saved(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_weights(model: torch.nn.Module) -> None:
        next(p for p in model.parameters() if p.requires_grad).data[:] = float("inf")

    at_step(monkeypatch, {4}, break_weights)
    with pytest.raises(UserError, match="step 4: weights are not finite"):
        train("training.max_steps=6")
    assert newest_checkpoint(tmp_path / "run").name == "checkpoint-2"
