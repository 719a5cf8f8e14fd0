"""Whether a run fits the memory and the disk, from the shapes of its models, before their weights are loaded."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import TaskType
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from reasoning_irl.config import schema
from reasoning_irl.models.frozen_layers import FrozenLayers
from reasoning_irl.models.loading import base_of, compute_dtype, reading_model, with_lora
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.sizes import FOUR_BIT, amount, free_bytes

WEIGHT = GRADIENT = 4  # bytes per trained weight
# Bytes of AdamW's two moments per trained weight. A paged optimiser may move them to the CPU; it need not.
MOMENTS = {
    schema.Optimizer.adamw_torch: 8,
    schema.Optimizer.adamw_8bit: 2,
    schema.Optimizer.paged_adamw_8bit: 2,
}
# Besides the newest ones: the best checkpoint, and the one that the guard may go back to.
MORE_KEPT = 2


class Footprint(NamedTuple):
    """Bytes that a model takes in training."""

    resident: int  # weights, gradients and optimiser; activations come on top
    saved: int  # in each checkpoint
    n_trained: int  # weights

    def __add__(self, other: "Footprint") -> "Footprint":  # type: ignore[override]
        return Footprint(*(a + b for a, b in zip(self, other, strict=True)))


def policy_footprint(config: schema.PolicyTrainConfig, source: str) -> Footprint:
    lora, moments = config.model.policy_lora, MOMENTS[config.training.optim]
    is_paged = config.training.optim == schema.Optimizer.paged_adamw_8bit
    policy = _footprint(
        AutoModelForCausalLM, source, lora, TaskType.CAUSAL_LM, config.model, moments, is_paged=is_paged
    )
    if isinstance(config, schema.SFTTrainConfig) or config.training.beta == 0:
        return policy
    # The reference is another model, or a copy of the adapter, which is saved with it.
    reference = policy.n_trained * WEIGHT
    return policy + Footprint(reference, reference if lora.rank else 0, 0)


def reward_footprint(config: schema.IRLTrainConfig | schema.OfflineTrainConfig, source: str) -> Footprint:
    model, more = config.model, {"num_labels": 1}
    n_frozen = model.reward_frozen_layers if isinstance(model, schema.OfflineModelConfig) else 0
    if model.reward_layers is not None:
        more["num_hidden_layers"] = model.reward_layers
    moments = MOMENTS[schema.Optimizer.adamw_torch]
    return _footprint(
        AutoModelForTokenClassification, source, model.reward_lora, TaskType.TOKEN_CLS, model, moments, more, n_frozen
    )


def _footprint(
    auto: Any,
    source: str,
    lora: schema.LoraConfig,
    task: TaskType,
    loaded: schema.ModelConfig | schema.OfflineModelConfig,
    moments: int,
    more: dict[str, int] | None = None,
    n_frozen: int = 0,
    is_paged: bool = False,
) -> Footprint:
    with reading_model(source):
        config = AutoConfig.from_pretrained(base_of(source), trust_remote_code=False, **(more or {}))
        with torch.device("meta"):
            model: Any = with_lora(auto.from_config(config, trust_remote_code=False), lora, task, n_frozen)
    if n_frozen and lora.rank == 0:  # of an adapted model, the weights are frozen anyway
        FrozenLayers(model.base_model, n_frozen)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    per_frozen: float = WEIGHT
    if lora.rank:
        per_frozen = FOUR_BIT if loaded.load_in_4bit else compute_dtype(loaded.dtype).itemsize
    on_gpu = 0 if is_paged else moments  # paged ones move to the CPU if they must
    resident = round(frozen * per_frozen) + trained * (WEIGHT + GRADIENT + on_gpu)
    saved = trained if lora.rank else trained + frozen  # of an adapted model, the adapter
    return Footprint(resident, saved * WEIGHT + trained * moments, trained)


def check_room(footprint: Footprint, training: schema.RunConfig, steps_left: int) -> None:
    """Prints what a run takes. Warns if its checkpoints do not fit the disk.

    Raises UserError if not one of them does, or if the models do not fit the GPU.
    """
    memory, need = footprint.resident, footprint.saved
    n = math.ceil(steps_left / training.save_steps)
    if training.save_total_limit is not None:
        n = min(n, training.save_total_limit + MORE_KEPT + 1)  # a new one is there before an old one is removed
    free = free_bytes(Path(training.output_dir))
    print(
        f"memory: at least {amount(memory)} for weights, gradients and optimisers; "
        f"disk: {n} checkpoint{'s' * (n > 1)} of about {amount(need)}, {amount(free)} free"
    )
    # Of what is split over several GPUs, each has a part only.
    if (
        torch.cuda.is_available()
        and not processes.sharded_by()
        and memory > (whole := torch.cuda.get_device_properties().total_memory)
    ):
        raise UserError(
            f"the models take at least {amount(memory)}, and the GPU has {amount(whole)}: use adapters "
            "(model.policy_lora.rank, model.reward_lora.rank), model.load_in_4bit=true, or smaller models"
        )
    if need > free:
        raise UserError(
            f"a checkpoint takes about {amount(need)}, and {training.output_dir} has {amount(free)} free: use another "
            "training.output_dir, or free some space"
        )
    if n * need > free:
        logger.warning(
            "%d checkpoints take about %s, and %s are free: use another training.output_dir, set "
            "training.save_total_limit=1, or free some space",
            n,
            amount(n * need),
            amount(free),
        )
