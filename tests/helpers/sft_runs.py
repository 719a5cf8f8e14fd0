"""Short SFT runs on a tiny model, in which something happens at a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

Train = Callable[..., Path]


def at_step(monkeypatch: pytest.MonkeyPatch, steps: set[int], act: Callable[[torch.nn.Module], object]) -> None:
    """Calls `act` with the model after the backward pass of these steps (from 1)."""
    real = Trainer.training_step

    def step(self: Trainer, model: torch.nn.Module, *given: Any, **more: Any) -> torch.Tensor:
        loss = real(self, model, *given, **more)
        if self.state.global_step + 1 in steps:
            act(model)
        return loss

    monkeypatch.setattr(Trainer, "training_step", step)
