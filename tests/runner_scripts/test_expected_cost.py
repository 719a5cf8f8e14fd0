"""Computed costs: sizes against published and real models, and the documentation against the configs."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from reasoning_irl.models.loading import LORA_TARGETS
from reasoning_irl.utils.sizes import GIB
from runner_scripts import expected_cost
from runner_scripts.experiments import SHAPES, Shape, experiments
from tests.helpers.commands import REPOSITORY


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("unsloth/Llama-3.2-1B-Instruct", 1.24),
        ("unsloth/Llama-3.2-3B-Instruct", 3.21),
        ("unsloth/Meta-Llama-3.1-8B-Instruct", 8.03),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.49),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.54),
        ("Qwen/Qwen2.5-3B-Instruct", 3.09),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62),
    ],
)
def test_parameter_counts_match_the_model_cards(name: str, billions: float) -> None:
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, abs=0.006)


@pytest.mark.parametrize("is_tied", [True, False])
def test_weights_adapter_and_cache_match_a_real_model(is_tied: bool) -> None:
    shape = Shape(layers=2, hidden=32, inner=48, heads=4, kv_heads=2, head_size=8, vocabulary=50, is_tied=is_tied)
    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=is_tied,
    )
    model = LlamaForCausalLM(config)
    matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    assert shape.parameters == matrices
    cache = model(input_ids=torch.zeros(3, 5, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert shape.cache(3 * 5) == 2 * held  # in bfloat16
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=LORA_TARGETS))
    assert shape.lora(4) == adapted.get_nb_trainable_parameters()[0]


def test_documentation_shows_the_current_costs() -> None:
    document = (REPOSITORY / "docs/experiments.md").read_text()
    assert expected_cost.table() in document, "paste the output of python runner_scripts/expected_cost.py"


def test_every_experiment_fits_on_one_gpu() -> None:
    costs = {names: expected_cost.cost(*names) for names in experiments()}
    assert len(costs) == 28
    for (name, _), cost in costs.items():
        assert 0 < cost.memory < (38 if "3b" in name else 70) * GIB
        assert 0 < cost.evaluation_memory < 70 * GIB


def test_airl_costs_more_time_and_memory_than_grpo() -> None:
    airl = expected_cost.cost("qwen7b/7B_1B_config_irl_train", "qwen7b/7B_1B_config_eval")
    grpo = expected_cost.cost("qwen7b/grpo_7B_config_train", "qwen7b/grpo_7B_config_eval")
    assert airl.training > grpo.training
    assert airl.memory > grpo.memory
