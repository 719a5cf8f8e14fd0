"""Models that start from an adapter folder: a LoRA run of one's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, TaskType
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from reasoning_irl.config.schema import Granularity, LoraConfig, RewardHead
from reasoning_irl.data.tokens import TokenSequence, collate
from reasoning_irl.models.loading import load_policy, load_tokenizer, trainable_policy, with_lora
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model, load_reward_model
from reasoning_irl.utils.errors import UserError
from tests.helpers.configs import compose_tiny

RANK = 3


def trained(model: Any) -> Any:
    """The model as if its trainable weights had been trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


@pytest.fixture(scope="module")
def adapter(embedded_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What SFT with LoRA leaves behind."""
    folder = tmp_path_factory.mktemp("sft")
    model = with_lora(load_policy(str(embedded_folder)), LoraConfig(RANK, 4), TaskType.CAUSAL_LM)
    trained(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def policy(source: str, rank: int) -> PreTrainedModel:
    model = compose_tiny([f"model.policy_lora.rank={rank}", "model.policy_lora.alpha=4"]).model
    return trainable_policy(model, source, 64, gradient_checkpointing=False, seed=0)


@pytest.mark.parametrize("rank", [0, RANK])
def test_policy_goes_on_from_an_adapter(rank: int, adapter: str, embedded_folder: Path, tmp_path: Path) -> None:
    """Trap: a second adapter on the merged first one, saved with the name of the base model, loses the first."""
    start = policy(adapter, rank)
    torch.testing.assert_close(logits(start), logits(load_policy(adapter)))
    assert not torch.allclose(logits(start), logits(load_policy(str(embedded_folder))), atol=0.1)
    n_layers = 2
    n_trained = sum(parameter.requires_grad for parameter in start.parameters())
    assert n_trained == (2 * 7 * n_layers if rank else len(list(start.parameters())))
    trained(start).save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_policy(str(tmp_path))), logits(start), rtol=1e-4, atol=1e-4)


def test_adapter_of_another_rank_is_refused(adapter: str) -> None:
    with pytest.raises(UserError, match=rf"rank {RANK}.* set model\.policy_lora\.rank={RANK}"):
        policy(adapter, RANK + 1)


def reward_model(
    name: Path | str, tokenizer: PreTrainedTokenizerFast, head: RewardHead, rank: int, n_layers: int | None = None
) -> RewardModel:
    torch.manual_seed(0)
    model = build_reward_model(str(name), RewardSpec(head, Granularity.dense, 5), tokenizer, n_layers=n_layers)
    model.backbone = with_lora(model.backbone, LoraConfig(rank, 4), TaskType.TOKEN_CLS)
    return model.eval()


@pytest.mark.parametrize("rank", [0, RANK])
@pytest.mark.parametrize("head", list(RewardHead))
def test_reward_model_goes_on_from_an_adapter(
    rank: int,
    head: RewardHead,
    adapter: str,
    sequences: list[TokenSequence],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Trap: a new adapter of the same name replaces the one that the model was loaded with."""
    load_policy(adapter).save_pretrained(tmp_path / "merged")
    batch = collate(sequences[:4], tokenizer.pad_token_id)
    model = reward_model(adapter, tokenizer, head, rank)
    assert isinstance(model.backbone, PeftModel) == bool(rank)
    with torch.no_grad():
        expected = reward_model(tmp_path / "merged", tokenizer, head, 0).rewards(batch)
        torch.testing.assert_close(model.rewards(batch), expected, rtol=1e-4, atol=1e-4)
        trained(model).save(tmp_path / "saved")
        torch.testing.assert_close(
            load_reward_model(tmp_path / "saved", tokenizer).rewards(batch), model.rewards(batch), rtol=1e-4, atol=1e-4
        )
    scores = [p for name, p in model.backbone.named_parameters() if "score" in name and "original" not in name]
    assert scores
    assert all(parameter.requires_grad for parameter in scores)


def test_first_layers_of_an_adapted_model_are_kept_with_their_adapter(
    adapter: str, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    load_policy(adapter).save_pretrained(tmp_path)
    batch = collate(sequences[:4], tokenizer.pad_token_id)
    with torch.no_grad():
        kept, whole = (
            reward_model(name, tokenizer, RewardHead.plain, 0, n_layers=1).rewards(batch)
            for name in (adapter, tmp_path)
        )
    torch.testing.assert_close(kept, whole, rtol=1e-4, atol=1e-4)


LLAMA_DATE = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}Today Date: {{ date_string }} {{ messages[0]['content'] }}"
)


@pytest.mark.parametrize("template", [LLAMA_DATE, "Today Date: {{ strftime_now('%d') }} {{ messages[0]['content'] }}"])
def test_prompts_do_not_depend_on_the_day(template: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Trap: after midnight, the prompts of new samples differ from those of the experts."""
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = template
    dated.save_pretrained(tmp_path / "given")
    loaded = load_tokenizer(str(tmp_path / "given"))
    prompt = [{"role": "user", "content": "hello"}]
    assert loaded.apply_chat_template(prompt, tokenize=False) == "Today Date: 26 Jul 2024 hello"
    loaded.save_pretrained(tmp_path / "again")
    assert load_tokenizer(str(tmp_path / "again")).chat_template == loaded.chat_template
