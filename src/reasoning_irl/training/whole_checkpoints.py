"""Checkpoints of the library's trainers that appear when they are whole."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from reasoning_irl.training.retention import Retention, writing
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import PART, publish_checkpoint


class WholeCheckpoints(Trainer):
    """Writes each checkpoint aside, with what `save_more` adds, and renames it at the end.

    A run that is killed while it saves leaves its earlier checkpoints, and nothing that looks like a checkpoint. Of
    several processes, the main one saves what all of them share, and renames the folder when all have saved their own.
    """

    _is_saving = False

    def __init__(self, *args: Any, retention: Retention | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.retention = retention  # None: all checkpoints are kept, and none is the best

    def _init_training_state(self, max_steps: int, *given: Any, **more: Any) -> Any:
        found = super()._init_training_state(max_steps, *given, **more)
        self.state.compute_steps(self.args, max_steps)  # the library keeps the intervals of the checkpoint
        return found

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / PART) if self._is_saving else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"checkpoint-{self.state.global_step}"
        is_finite = all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)
        if not all(processes.gather(is_finite)):  # of sharded weights, each process sees its own
            raise UserError(
                f"step {self.state.global_step}: weights are not finite, and are not saved; lower "
                "training.learning_rate, or resume an earlier checkpoint"
            )
        self._is_saving = True
        try:
            part = Path(self._get_output_dir(trial)) / name
            with writing(part):
                super()._save_checkpoint(model, trial)
                if processes.is_main():
                    self.save_more(part)
        finally:
            self._is_saving = False
        processes.barrier()
        if processes.is_main():
            self._publish(part, Path(self._get_output_dir(trial)) / name)
        processes.barrier()

    def _publish(self, part: Path, target: Path) -> None:
        if self.retention is None:
            publish_checkpoint(part, target)
        else:
            self.retention.save(part, target, self.still_needed)

    def still_needed(self) -> list[Path]:
        """Checkpoints that a subclass may go back to."""
        return []

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Leaves out the library's card, which names neither the algorithm nor the base model: see model_card.py."""

    def save_more(self, folder: Path) -> None:
        """Saves what a subclass needs besides the library's files."""
