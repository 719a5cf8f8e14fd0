"""What ends a run early, and what is not learnt: SIGTERM and non-finite gradients, in the SFT job on a tiny model."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from reasoning_irl.config.schema import SFTTrainConfig
from reasoning_irl.models.loading import load_policy
from reasoning_irl.training import jobs
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import newest_checkpoint
from tests.helpers.configs import compose_config
from tests.helpers.traces import read_rows

Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def run(*overrides: str) -> Path:
        given = ("scale=smoke", f"training.output_dir={tmp_path / 'run'}", "training.save_steps=2", *overrides)
        return jobs.train_sft(compose_config("llama3b/sft_3B_config_train", SFTTrainConfig, *given))

    return run


def at_step(monkeypatch: pytest.MonkeyPatch, steps: set[int], act: Callable[[torch.nn.Module], object]) -> None:
    """Calls `act` with the model after the backward pass of these steps (from 1)."""
    real = Trainer.training_step

    def step(self: Trainer, model: torch.nn.Module, *given: Any, **more: Any) -> torch.Tensor:
        loss = real(self, model, *given, **more)
        if self.state.global_step + 1 in steps:
            act(model)
        return loss

    monkeypatch.setattr(Trainer, "training_step", step)


def spoil(model: torch.nn.Module) -> None:
    next(p for p in model.parameters() if p.grad is not None).grad[:] = float("nan")


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


def test_gradient_that_is_not_finite_changes_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_step(monkeypatch, {2}, spoil)
    last = train("training.max_steps=3", "training.save_steps=1", "training.learning_rate=0.01")
    assert "step 2 changes nothing" in caplog.text
    one, two, three = (load_policy(str(last.with_name(f"checkpoint-{n}"))).state_dict() for n in (1, 2, 3))
    assert all(value.equal(two[name]) for name, value in one.items())
    assert not all(value.equal(three[name]) for name, value in one.items())


def test_run_whose_gradients_stay_non_finite_ends_and_keeps_its_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, set(range(3, 99)), spoil)
    with pytest.raises(UserError, match=r"5 steps in a row, up to step 7.*training\.learning_rate"):
        train("training.max_steps=20")
    weights = load_policy(str(newest_checkpoint(tmp_path / "run"))).state_dict()
    assert all(value.isfinite().all() for value in weights.values())


def test_weights_that_are_not_finite_are_never_saved(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_weights(model: torch.nn.Module) -> None:
        next(p for p in model.parameters() if p.requires_grad).data[:] = float("inf")

    at_step(monkeypatch, {4}, break_weights)
    with pytest.raises(UserError, match="step 4: weights are not finite"):
        train("training.max_steps=6")
    assert newest_checkpoint(tmp_path / "run").name == "checkpoint-2"
