"""Steps whose loss, gradient or reward is not finite: skipped, kept to look at, and too many in a row end the run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger

FOLDER = "non_finite"  # in a run folder
MOST_IN_A_ROW = 5
# What is not finite besides a gradient of the policy, and the learning rate that may be too high.
RATES = {
    "discriminator": "model.reward_learning_rate",
    "reward": "model.reward_learning_rate",
}
MOST_KEPT = 20  # batches, so that the disk does not fill up


class NonFiniteSteps:
    """Keeps the batch of each step that is not finite, and ends the run after `MOST_IN_A_ROW` of one kind."""

    def __init__(self, run_dir: Path, policy_rate: str = "training.learning_rate") -> None:
        self._folder = run_dir / FOLDER
        self._rates = RATES | {"gradient": policy_rate}
        self._in_a_row: Counter[str] = Counter()

    def went_well(self, kind: str) -> None:
        self._in_a_row[kind] = 0

    def skipped(self, kind: str, step: int, reason: str, batches: Sequence[Mapping[str, Any]]) -> None:
        """Warns, and saves the tensors of a step's batches with the reason as metadata, each process its own.

        All processes must call it at the same step.

        Args:
            kind: gradient, discriminator or reward; it names the file and is counted on its own.

        Raises UserError after too many steps in a row.
        """
        self._in_a_row[kind] += 1
        owner = "" if processes.is_main() else f"-process-{processes.rank()}"
        kept = self._keep(f"step-{step}-{kind}{owner}", reason, batches)
        logger.warning("step %d: %s%s", step, reason, f" (the batch is in {kept})" if kept else "")
        if self._in_a_row[kind] == MOST_IN_A_ROW:
            raise UserError(
                f"{MOST_IN_A_ROW} in a row, up to step {step}: {reason}: lower {self._rates[kind]}, or look at the "
                f"batches in {self._folder}"
                + "; earlier checkpoints are whole"
                * any(self._folder.parent.glob("checkpoint-*"))
            )

    def _keep(self, name: str, reason: str, batches: Sequence[Mapping[str, Any]]) -> Path | None:
        tensors = {
            f"{n}.{key}": value.detach().cpu().clone()  # the micro-batches of a step share some
            for n, batch in enumerate(batches)
            for key, value in batch.items()
            if isinstance(value, Tensor)
        }
        if not tensors or len(list(self._folder.glob("*"))) >= MOST_KEPT:
            return None
        path = self._folder / f"{name}-{1 + len(list(self._folder.glob(f'{name}-[0-9]*')))}.safetensors"
        try:
            self._folder.mkdir(exist_ok=True)
            save_file(tensors, path, {"reason": reason})
        except (OSError, SafetensorError) as error:
            logger.warning("the batch cannot be kept: %s", error)
            return None
        return path


class SkipsNonFinite(Trainer):
    """A trainer that drops a gradient that is not finite, so that the weights stay as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._passes: list[Mapping[str, Any]] = []  # the inputs of this step's losses
        super().__init__(*args, **kwargs)
        assert self.args.output_dir is not None
        self.non_finite = NonFiniteSteps(Path(self.args.output_dir))
        self.add_callback(_DropNonFinite(self))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *given: Any, **more: Any) -> Any:
        self.remember(inputs)
        return super().compute_loss(model, inputs, *given, **more)

    def remember(self, inputs: Mapping[str, Any]) -> None:
        """Keeps a loss's inputs until the end of the step."""
        assert self.model is not None
        if self.model.training:
            self._passes.append(inputs)

    def end_step(self, is_finite: bool) -> None:
        if is_finite:
            self.non_finite.went_well("gradient")
        else:
            reason = "the gradient is not finite, so no weight is changed"
            self.non_finite.skipped("gradient", self.state.global_step + 1, reason, self._passes)
        self._passes = []


class _DropNonFinite(TrainerCallback):
    def __init__(self, trainer: SkipsNonFinite) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,  # noqa: ARG002 (the library's signature)
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **more: Any,
    ) -> None:
        model: nn.Module = more["model"]
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        is_finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if not is_finite:
            model.zero_grad(set_to_none=True)
        self._trainer.end_step(is_finite)
