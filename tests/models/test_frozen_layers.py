"""Frozen lower layers: the same logits and gradients as the whole model, from outputs that are computed once."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import TaskType
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast, Qwen2ForTokenClassification

from reasoning_irl.config.schema import Dtype, Granularity, LoraConfig, RewardHead
from reasoning_irl.data.tokens import TokenSequence, collate
from reasoning_irl.models.frozen_layers import FrozenLayers
from reasoning_irl.models.loading import with_lora
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model, load_reward_model
from reasoning_irl.utils.errors import UserError
from tests.helpers.models import save_tiny_model

MakeModel = Callable[..., RewardModel]


@pytest.fixture(scope="session", params=["llama", "qwen2"])
def deep_folder(request: Any, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model of four layers."""
    folder = tmp_path_factory.mktemp(request.param)
    kinds = {"qwen2": {"architecture": Qwen2ForTokenClassification, "num_labels": 1}, "llama": {}}
    return save_tiny_model(folder, tokenizer, num_hidden_layers=4, initializer_range=0.2, **kinds[request.param])


@pytest.mark.parametrize("head", list(RewardHead))
def test_same_logits_and_gradients_as_the_whole_model(
    head: RewardHead,
    deep_folder: Path,
    make_reward_model: MakeModel,
    sequences: list[TokenSequence],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Trap: prompts are padded on the left in training's layout, and not in the one that is kept."""
    if head == RewardHead.likelihood and "qwen2" in deep_folder.name:
        pytest.skip("the Qwen2 folder has no output matrix")
    whole = make_reward_model(head, name=deep_folder)
    torch.nn.init.normal_(whole.backbone.score.weight)
    partly = copy.deepcopy(whole)
    partly.freeze_layers(3)
    batch = collate(sequences[:6], tokenizer.pad_token_id)
    weights = torch.randn(batch.completion_ids.shape) * batch.completion_mask
    for _ in range(2):  # computed, then kept
        expected, found = whole(batch), partly(batch)
        assert torch.allclose((expected - found) * batch.completion_mask, torch.zeros(()), atol=1e-4)
        assert torch.allclose(whole.rewards(batch), partly.rewards(batch), atol=1e-4)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    upper = dict(partly.backbone.base_model.layers[3].named_parameters())
    for name, parameter in whole.backbone.base_model.layers[3].named_parameters():
        assert torch.allclose(parameter.grad, upper[name].grad, rtol=1e-3, atol=1e-4), name
    assert all(p.grad is None for p in partly.backbone.base_model.layers[:3].parameters())
    assert partly.backbone.get_input_embeddings().weight.grad is None


def test_frozen_layers_compute_in_bfloat16_too(
    deep_folder: Path, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Trap: training in another precision than scoring, which has no frozen layers."""
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 5, dtype=Dtype.bfloat16)
    whole = build_reward_model(str(deep_folder), spec, tokenizer).eval()
    torch.nn.init.normal_(whole.backbone.score.weight)
    partly = copy.deepcopy(whole)
    partly.freeze_layers(3)
    in_float32 = copy.deepcopy(whole)
    in_float32.spec = replace(spec, dtype=Dtype.float32)
    batch = collate(sequences[:6], tokenizer.pad_token_id)
    mask = batch.completion_mask.bool()
    with torch.no_grad():
        expected, found, other = (model(batch)[mask] for model in (whole, partly, in_float32))
    assert (found - expected).abs().max() < 0.1 * (other - expected).abs().max()


def test_lower_layers_run_once_per_sequence(
    deep_folder: Path, make_reward_model: MakeModel, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_reward_model(name=deep_folder)
    model.freeze_layers(2)
    rows: list[int] = []
    model.backbone.base_model.layers[0].register_forward_hook(lambda _m, _a, out: rows.append(len(out)))
    for start in (0, 0, 2):
        model(collate(sequences[start : start + 4], tokenizer.pad_token_id))
    assert rows == [4, 2]


def test_model_is_whole_again_after_use(
    deep_folder: Path,
    make_reward_model: MakeModel,
    sequences: list[TokenSequence],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    model, batch = make_reward_model(name=deep_folder), collate(sequences[:3], tokenizer.pad_token_id)
    model.freeze_layers(2)
    expected = model.rewards(batch)
    model.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert torch.allclose(load_reward_model(tmp_path).rewards(batch), expected, atol=1e-4)
    assert AutoModelForTokenClassification.from_pretrained(tmp_path).config.num_hidden_layers == 4
    with pytest.raises(RuntimeError), model._frozen.skipped():  # type: ignore[union-attr]
        raise RuntimeError
    assert len(model.backbone.base_model.layers) == 4


def test_with_all_layers_frozen_only_norm_and_head_are_trained(
    deep_folder: Path, make_reward_model: MakeModel, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    model, batch = make_reward_model(name=deep_folder), collate(sequences[:3], tokenizer.pad_token_id)
    expected = model(batch)
    model.freeze_layers(4)
    assert torch.allclose((model(batch) - expected) * batch.completion_mask, torch.zeros(()), atol=1e-4)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("score" in name or name.endswith("model.norm.weight") for name in trained)
    model(batch).sum().backward()


def test_frozen_layers_get_no_adapter(
    deep_folder: Path, make_reward_model: MakeModel, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_reward_model(name=deep_folder)
    model.backbone = with_lora(model.backbone, LoraConfig(2, 4), TaskType.TOKEN_CLS, n_frozen=3)
    model.freeze_layers(3)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert not any("lora" in name and "layers.3." not in name for name, _ in model.named_parameters())
    assert all("layers.3." in name or "score" in name for name in trained)
    model(collate(sequences[:2], tokenizer.pad_token_id)).sum().backward()


def test_unsuitable_models_are_refused(deep_folder: Path, make_reward_model: MakeModel) -> None:
    model = make_reward_model(name=deep_folder)
    with pytest.raises(UserError, match="the model has 4 layers"):
        model.freeze_layers(5)
    decoder: Any = model.backbone.base_model
    decoder.config.layer_types = ["full_attention", "sliding_attention"] * 2
    with pytest.raises(UserError, match="mixes full and windowed"):
        model.freeze_layers(1)
    with pytest.raises(UserError, match="does not support Linear"):
        FrozenLayers(torch.nn.Linear(1, 1), 1)
