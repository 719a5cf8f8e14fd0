"""From the checked config to the arguments of TRL's trainers."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOConfig

from reasoning_irl.config.schema import Dtype, GRPOTrainConfig, IRLTrainConfig, PolicyTrainConfig, WandbMode
from reasoning_irl.models.loading import compute_dtype
from reasoning_irl.tracking import wandb_mode
from reasoning_irl.training.callbacks import JsonlLog, StopOnSignal, TimeLimit
from reasoning_irl.utils.processes import is_main
from reasoning_irl.utils.run_folder import TRAIN_LOG


def device_arguments(dtype: Dtype) -> dict[str, Any]:
    """The arguments of any trainer that depend on the device and on what layers compute in."""
    has_gpu = torch.cuda.is_available()
    is_bfloat16 = compute_dtype(dtype) == torch.bfloat16
    return {"bf16": is_bfloat16, "use_cpu": not has_gpu, "dataloader_pin_memory": has_gpu}


def trainer_arguments(config: PolicyTrainConfig) -> dict[str, Any]:
    """The arguments that SFTConfig and GRPOConfig share."""
    training = config.training
    return {
        "max_steps": training.max_steps,
        "optim": training.optim.value,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type.value,
        "warmup_steps": int(training.warmup_ratio * training.max_steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "logging_steps": training.logging_steps,
        "save_steps": training.save_steps,
        "report_to": "none" if wandb_mode(config.wandb) == WandbMode.disabled else "wandb",
        "seed": config.seed,
        "adam_beta2": training.adam_beta2,
        "gradient_checkpointing": training.gradient_checkpointing,
        **device_arguments(config.model.dtype),
    }


def grpo_arguments(config: IRLTrainConfig | GRPOTrainConfig, **more: Any) -> GRPOConfig:
    """The arguments of a trainer that samples groups; `more` are passed to GRPOConfig."""
    training, url = config.training, config.model.vllm_server
    server: dict[str, Any] = {"vllm_mode": "server", "vllm_server_base_url": url} if url else {}
    return GRPOConfig(
        output_dir=training.output_dir,
        num_generations=training.num_generations,
        num_iterations=training.num_iterations,
        max_completion_length=training.max_completion_length,
        temperature=training.temperature,
        top_p=training.top_p,
        epsilon=training.clip_epsilon,
        beta=training.beta,
        use_vllm=config.model.fast_inference,
        vllm_importance_sampling_correction=True,  # the default depends on the backend
        **server,
        **trainer_arguments(config),
        **more,
    )


def callbacks(config: PolicyTrainConfig, stop: StopOnSignal) -> list[TrainerCallback]:
    """The local log of every step, SIGTERM, and the time limit if there is one."""
    chosen: list[TrainerCallback] = [stop]
    if is_main():
        chosen.insert(0, JsonlLog(Path(config.training.output_dir) / TRAIN_LOG))
    if config.training.max_seconds is not None:
        chosen.append(TimeLimit(config.training.max_seconds))
    return chosen
