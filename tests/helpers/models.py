"""Tiny models with random weights, saved as ordinary checkpoint folders."""

from pathlib import Path
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForTokenClassification,
    set_seed,
)


def save_tiny_model(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    architecture: type[PreTrainedModel] = LlamaForCausalLM,
    **changes: Any,
) -> Path:
    """Saves a Llama or Qwen2 model with its tokenizer; large random weights make scores differ visibly."""
    settings: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "initializer_range": 0.5,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = Qwen2Config if issubclass(architecture, Qwen2ForTokenClassification) else LlamaConfig
    set_seed(0)
    architecture(config(**(settings | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
