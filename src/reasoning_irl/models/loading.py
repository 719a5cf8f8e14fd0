"""Policies and tokenizers: where they come from, and how they are readied for training."""

from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_irl.config import schema
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.utils.errors import UserError

# The seven projections that carry an adapter in the published configuration.
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def policy_source(model: schema.ModelConfig, max_value: int, run_dir: Path) -> str:
    """The folder or hub name that the policy starts from; builds the embedded model's folder where it is asked for."""
    if model.checkpoint:
        return model.checkpoint
    if model.policy_name != "embedded":
        return model.policy_name
    folder = run_dir / "embedded"
    save_embedded(model.embedded, max_value, folder)
    return str(folder)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer that can pad and chat. Raises UserError where it cannot."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(_no_model(name, error)) from error
    if tokenizer.chat_template is None:
        raise UserError(f"the tokenizer of {name} has no chat template: use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(name: str) -> PreTrainedModel:
    """A causal language model in float32; the folder of an adapter is loaded with its base."""
    is_adapter = (Path(name) / "adapter_config.json").is_file()
    auto = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    try:
        model = auto.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(_no_model(name, error)) from error
    if is_adapter:
        # A fresh adapter may follow; the old one becomes part of the weights.
        merged: PreTrainedModel = model.merge_and_unload()  # type: ignore[operator]
        return merged
    return model


def with_lora(model: PreTrainedModel, lora: schema.LoraConfig, task: TaskType) -> PreTrainedModel:
    """The model with an adapter on its projections; rank 0 leaves it as it is, all weights trainable."""
    if lora.rank == 0:
        return model
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=LORA_TARGETS, task_type=task)
    adapted: Any = get_peft_model(model, config)  # has the interface of the model it wraps
    return adapted


def _no_model(name: str, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0]
    return f"cannot load {name}: {first_line} Give the folder of a model, or a hub name you have access to."
