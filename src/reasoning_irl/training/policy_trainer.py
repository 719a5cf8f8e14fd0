"""What AIRL and GRPO share: TRL's GRPOTrainer with a log of samples, resumed from our checkpoints."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer

from reasoning_irl.training.completions import CompletionsLog
from reasoning_irl.training.non_finite import SkipsNonFinite
from reasoning_irl.training.speed import LogsSpeed
from reasoning_irl.training.whole_checkpoints import WholeCheckpoints
from reasoning_irl.utils.errors import UserError


class PolicyTrainer(SkipsNonFinite, WholeCheckpoints, GRPOTrainer, LogsSpeed):
    """GRPOTrainer that logs its samples and resumes the policy's own adapter."""

    model: PreTrainedModel
    args: GRPOConfig
    num_generations: int
    beta: float
    max_completion_length: int

    def __init__(self, *, completions: CompletionsLog, **kwargs: Any) -> None:
        self._epochs_done = 0
        super().__init__(**kwargs)
        self.completions = completions
        if self.beta and isinstance(self.model, PeftModel) and "ref" not in self.model.peft_config:
            # Without a copy of it, the reference is the model without its adapter: right only for a new one.
            trained = (p for name, p in self.model.named_parameters() if "lora_B.default" in name)
            if any(p.any() for p in trained):
                raise UserError(
                    "this backend keeps no copy of the adapter that the policy starts from, to which training.beta "
                    "binds it: set training.beta=0, or model.backend=transformers"
                )

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        if resume_from_checkpoint is not None:
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
            self._epochs_done = int(state.epoch or 0)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """The library's sampler, whose order of the prompts is drawn anew in each epoch; goes on after those done."""
        sampler: Any = super()._get_train_sampler(dataset)
        for _ in range(self._epochs_done):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        if not isinstance(model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # The library takes every subfolder with an adapter for one of the policy's, and then not the policy's own. Ours
        # are the reward model's and TRL's reference, which is a copy of the start and was made again from it.
        model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
