import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
)

from reasoning_irl.config.schema import DiscriminatorLogit, Dtype, Granularity, RewardHead
from reasoning_irl.config.schema import LoraConfig as LoraSettings
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate
from reasoning_irl.metrics.calibration import Platt
from reasoning_irl.metrics.reading import Reading
from reasoning_irl.models.granularity import back_fill
from reasoning_irl.models.loading import with_lora
from reasoning_irl.models.reward_model import (
    RewardModel,
    RewardSpec,
    build_reward_model,
    load_reward_model,
    load_spec,
)
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.models import save_tiny_model

MakeModel = Callable[..., RewardModel]
HEADS = list(RewardHead)


@pytest.fixture
def batch(sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast) -> TokenBatch:
    return collate(sequences[:6], tokenizer.pad_token_id)


@pytest.fixture(scope="session")
def untied_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A causal language model whose output matrix is separate from its embeddings."""
    folder = tmp_path_factory.mktemp("untied")
    return save_tiny_model(folder, tokenizer, tie_word_embeddings=False, initializer_range=0.3)


def trained(model: RewardModel) -> RewardModel:
    """The model as if trained: every weight has changed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def scores(model: RewardModel, batch: TokenBatch) -> Tensor:
    return model.rewards(batch)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("granularity", [Granularity.dense, Granularity.step])
def test_saved_model_gives_the_same_scores(
    head: RewardHead,
    granularity: Granularity,
    make_reward_model: MakeModel,
    batch: TokenBatch,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    model = trained(make_reward_model(head, granularity))
    model.save(tmp_path)
    loaded = load_reward_model(tmp_path, tokenizer)
    assert loaded.spec == model.spec
    torch.testing.assert_close(scores(loaded, batch), scores(model, batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_saved_adapter_gives_the_same_scores_and_stays_trainable(
    head: RewardHead,
    make_reward_model: MakeModel,
    batch: TokenBatch,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Trap: a resumed run whose reward adapter was loaded frozen, for inference."""
    model = make_reward_model(head)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type=TaskType.TOKEN_CLS)
    model.backbone = get_peft_model(model.backbone, lora)
    trainable = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.eval().save(tmp_path)
    loaded = load_reward_model(tmp_path, tokenizer)
    torch.testing.assert_close(scores(loaded, batch), scores(model, batch), rtol=0, atol=1e-6)
    shapes = [p.shape for p in loaded.parameters() if p.requires_grad]
    assert shapes == [p.shape for p in trainable]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rank", [0, 2])
def test_bfloat16_computes_layers_and_trains_in_float32(
    head: RewardHead,
    rank: int,
    embedded_folder: Path,
    batch: TokenBatch,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Traps: a head in bfloat16, whose small updates are rounded away; other logits after loading."""
    spec = RewardSpec(head, Granularity.dense, 5, dtype=Dtype.bfloat16)
    reference = build_reward_model(str(embedded_folder), spec, tokenizer).eval()
    model = build_reward_model(str(embedded_folder), spec, tokenizer, frozen=rank > 0)
    model.backbone = with_lora(model.backbone, LoraSettings(rank, 4), TaskType.TOKEN_CLS)
    model.backbone.load_state_dict(
        {name: value for name, value in reference.backbone.state_dict().items() if "score" in name}, strict=False
    )
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert {p.dtype for p in frozen} == ({torch.bfloat16} if rank else set())
    read = model.read_mask(batch)
    with torch.no_grad():
        logits = model(batch)[read]
    assert logits.dtype == torch.float32
    assert len(logits.unique()) > 0.9 * len(logits)  # more digits than bfloat16 has
    # 20 steps at the published rate move every weight, as in float32.
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0)
    start = [p.detach().clone() for p in trained]
    for _ in range(20):
        (model(batch)[read] ** 2).mean().backward()
        optimizer.step()
    moved = torch.cat([(p.detach() - s).flatten() for p, s in zip(trained, start, strict=True) if p.grad is not None])
    used = torch.cat([p.grad.flatten() for p in trained if p.grad is not None]) != 0
    assert (moved[used] != 0).float().mean() > 0.99
    model.save(tmp_path)
    loaded = load_reward_model(tmp_path, tokenizer)  # which knows its dtype
    assert {p.dtype for p in loaded.parameters() if p.requires_grad} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch)[read], model(batch)[read], rtol=1e-2, atol=2e-3)


def test_additive_logit_is_saved_and_older_folders_lack_it(make_reward_model: MakeModel, tmp_path: Path) -> None:
    model = make_reward_model(logit=DiscriminatorLogit.additive, granularity=Granularity.sparse)
    model.save(tmp_path)
    assert load_spec(tmp_path) == model.spec
    spec = json.loads((tmp_path / "reward_spec.json").read_text())
    del spec["logit"]
    (tmp_path / "reward_spec.json").write_text(json.dumps(spec))
    assert load_spec(tmp_path).logit == DiscriminatorLogit.token


def test_centred_model_has_a_mean_of_zero(
    make_reward_model: MakeModel, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Trap: padding, or a mean of the means of micro-batches, in the mean over tokens."""
    model = make_reward_model(head=RewardHead.likelihood, logit=DiscriminatorLogit.additive)
    model.centre(sequences[:7], batch_size=3)
    batch = collate(sequences[:7], tokenizer.pad_token_id)
    with torch.no_grad():
        f = model(batch)[batch.completion_mask.bool()]
    assert f.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert f.std().item() > 0.1
    model.centre([], batch_size=3)
    assert model.likelihood.bias.item() == 0.0


def test_plain_reward_model_is_a_token_classifier(
    make_reward_model: MakeModel, batch: TokenBatch, tmp_path: Path
) -> None:
    model = trained(make_reward_model())
    model.save(tmp_path)
    classifier = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert classifier.config.num_labels == 1
    with torch.no_grad():
        logits = classifier(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[..., 0]
    completion = logits[:, -batch.completion_ids.size(1) :] * batch.completion_mask
    torch.testing.assert_close(scores(model, batch), completion, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("granularity", list(Granularity))
def test_scores_do_not_depend_on_padding_or_the_rest_of_the_batch(
    head: RewardHead,
    granularity: Granularity,
    make_reward_model: MakeModel,
    sequences: list[TokenSequence],
    batch: TokenBatch,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Trap: positions shifted by left padding, or a batch cut to the length of the completions."""
    model = trained(make_reward_model(head, granularity))
    chosen = sequences[:6]
    assert len({len(s.prompt_ids) for s in chosen}) > 1
    assert len({len(s.completion_ids) for s in chosen}) > 1
    together = scores(model, batch)
    for i, sequence in enumerate(chosen):
        alone = scores(model, collate([sequence], tokenizer.pad_token_id))[0]
        torch.testing.assert_close(together[i, : len(alone)], alone, rtol=0, atol=1e-5)
        assert not together[i, len(alone) :].any()


def causal_log_probs(model: AutoModelForCausalLM, sequences: Sequence[TokenSequence]) -> list[Tensor]:
    """Log-probabilities of the completion tokens, one sequence at a time."""
    found = []
    for sequence in sequences:
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        with torch.no_grad():
            log_probs = torch.log_softmax(model(input_ids=ids).logits[0], -1)
        start = len(sequence.prompt_ids)
        found.append(torch.stack([log_probs[t - 1, ids[0, t]] for t in range(start, ids.size(1))]))
    return found


@pytest.mark.parametrize("kind", ["embedded_folder", "untied_folder"])
def test_new_likelihood_head_is_the_log_probability_of_the_language_model(
    kind: str,
    request: pytest.FixtureRequest,
    make_reward_model: MakeModel,
    sequences: list[TokenSequence],
    batch: TokenBatch,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    """Trap: the hidden state of the token itself (off by one), or the embeddings used as an untied output matrix."""
    folder = request.getfixturevalue(kind)
    model = make_reward_model(RewardHead.likelihood, name=folder).eval()
    assert model.likelihood is not None
    assert model.likelihood.tied == (kind == "embedded_folder")
    causal = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.save(tmp_path)
    for read in (model, load_reward_model(tmp_path, tokenizer)):
        for row, expected in zip(scores(read, batch), causal_log_probs(causal, sequences[:6]), strict=True):
            torch.testing.assert_close(row[: len(expected)], expected + 1, rtol=0, atol=1e-5)  # the initial bias is 1


def test_likelihood_of_a_segment_is_the_mean_of_its_tokens(
    make_reward_model: MakeModel, embedded_folder: Path, sequences: list[TokenSequence], batch: TokenBatch
) -> None:
    model = make_reward_model(RewardHead.likelihood, Granularity.sparse).eval()
    causal = AutoModelForCausalLM.from_pretrained(embedded_folder, dtype=torch.float32).eval()
    for row, each in zip(scores(model, batch), causal_log_probs(causal, sequences[:6]), strict=True):
        expected = (each.mean() + 1).expand(len(each))
        torch.testing.assert_close(row[: len(each)], expected, rtol=0, atol=1e-5)


def test_untied_output_matrix_moves_with_the_model_and_stays_frozen(
    make_reward_model: MakeModel, untied_folder: Path
) -> None:
    """Trap: a matrix outside the module stays on the CPU when the model moves to a GPU."""
    model = make_reward_model(RewardHead.likelihood, name=untied_folder)
    assert model.likelihood is not None
    matrix = model.likelihood.output_matrix
    assert all(p.data_ptr() != matrix.data_ptr() for p in model.parameters())
    assert model.to("meta").likelihood.output_matrix.device.type == "meta"


def test_tied_output_matrix_is_still_the_embeddings_after_a_move(make_reward_model: MakeModel) -> None:
    model = make_reward_model(RewardHead.likelihood).to(torch.float64).to(torch.float32)
    assert model.likelihood is not None
    assert model.likelihood.output_matrix is model.backbone.get_input_embeddings().weight


@pytest.mark.parametrize("head", HEADS)
def test_rewards_depend_on_the_whole_prompt_and_on_no_later_token(
    head: RewardHead,
    make_reward_model: MakeModel,
    sequences: list[TokenSequence],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Trap: prompt and completion cut to the length of the completion, so that the start of the prompt is ignored."""
    model = trained(make_reward_model(head))
    sequence = max(sequences, key=lambda s: len(s.prompt_ids))
    prompt, completion = list(sequence.prompt_ids), list(sequence.completion_ids)
    other = tokenizer.convert_tokens_to_ids("39")

    def read(prompt_ids: list[int], completion_ids: list[int]) -> Tensor:
        return scores(model, collate([TokenSequence(tuple(prompt_ids), tuple(completion_ids))], 0))[0]

    before = read(prompt, completion)
    changed_prompt = read([prompt[0], other, *prompt[2:]], completion)
    assert (changed_prompt - before).abs().min().item() > 1e-6
    at = len(completion) - 4
    changed = read(prompt, [*completion[:at], other, *completion[at + 1 :]])
    torch.testing.assert_close(changed[:at], before[:at], rtol=0, atol=1e-6)
    assert (changed[at:] - before[at:]).abs().min().item() > 1e-6


@pytest.mark.parametrize("head", HEADS)
def test_every_trainable_weight_gets_a_gradient(
    head: RewardHead, make_reward_model: MakeModel, batch: TokenBatch
) -> None:
    model = make_reward_model(head)
    (model(batch) * batch.completion_mask).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert [n for n in without if not n.endswith("score.bias")] == []


def test_batch_gives_each_completion_its_own_score(make_reward_model: MakeModel, records: list[Record]) -> None:
    """Trap: batches are sorted by length; scores must return to their own completions."""
    model = trained(make_reward_model(RewardHead.likelihood))
    chosen = records[:7]
    together = model.score_batch([r.question for r in chosen], [r.target for r in chosen], batch_size=3)
    assert len({len(scored.tokens) for scored in together}) > 2
    for record, scored in zip(chosen, together, strict=True):
        alone = model.score(record.question, record.target)
        assert scored.rewards == pytest.approx(alone.rewards, abs=1e-5)
        assert replace(scored, rewards=[], step_scores=[], total=0.0) == replace(
            alone, rewards=[], step_scores=[], total=0.0
        )
        assert "".join(scored.tokens) == record.target
    assert model.score_batch([], []) == []


@pytest.mark.parametrize("text", ["", " \n"])
def test_completion_without_text_is_scored_at_its_end_token(make_reward_model: MakeModel, text: str) -> None:
    scored = trained(make_reward_model()).score("How many?", text)
    assert "".join(scored.tokens) == text
    assert scored.steps == scored.step_scores == []
    assert scored.total == pytest.approx(np.mean(scored.rewards))


@pytest.mark.parametrize(
    ("questions", "completions", "message"),
    [
        (["a"], [None], r"completions\[0\] is None: give its text"),
        (["a", "b"], ["x", [{"role": "assistant", "content": "x"}]], r"completions\[1\] is a list"),
        ([3], ["x"], r"questions\[0\] is a int"),
        (["a"], "x", "completions is one text: give a list"),
        (["a"], ["x", "y"], "1 questions for 2 completions"),
    ],
)
def test_anything_but_texts_is_refused(
    make_reward_model: MakeModel, questions: Any, completions: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_reward_model().score_batch(questions, completions)


@pytest.mark.parametrize("reading", [None, Reading("min", "x"), Reading("product", "x", Platt(0.5, 1.0))])
@pytest.mark.parametrize("logit", list(DiscriminatorLogit))
def test_total_is_read_as_the_saved_model_says(
    make_reward_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    records: list[Record],
    tmp_path: Path,
    reading: Reading | None,
    logit: DiscriminatorLogit,
) -> None:
    model = trained(make_reward_model(logit=logit))
    model.spec = replace(model.spec, reading=reading)
    model.save(tmp_path)
    scored = load_reward_model(tmp_path, tokenizer).score(records[0].question, records[0].target)
    p = [1 / (1 + math.exp(-(0.5 * mean + 1.0))) for mean in scored.step_scores]
    expected = {
        "mean": np.mean(scored.rewards),
        "sum": np.sum(scored.rewards),
        "min": min(scored.rewards),
        "product": sum(map(math.log, p)),
    }
    default = "sum" if logit == DiscriminatorLogit.additive else "mean"
    assert scored.aggregation == (reading.aggregation if reading else default)
    assert scored.total == pytest.approx(expected[scored.aggregation])


def test_reward_model_is_loaded_by_its_hub_name(
    make_reward_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache of the hub, as a download leaves it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--someone--reward", "0" * 40
    model = trained(make_reward_model())
    model.save(repository / "snapshots" / commit)
    tokenizer.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = RewardModel.from_run("someone/reward")
    assert found.score("How many?", "3").rewards == pytest.approx(model.score("How many?", "3").rewards, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [("./no/such/folder", "there is no folder ./no/such/folder"), ("no/such", "there is no folder no/such here, and")],
)
def test_name_that_is_neither_a_folder_nor_on_the_hub_is_refused(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as caught:
        RewardModel.from_run(name)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_without_a_reward_model_is_named_in_one_line(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="not a reward model") as caught:
            load_reward_model(folder, tokenizer)
        assert len(str(caught.value).splitlines()) == 1
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize("head", list(RewardHead))
@pytest.mark.parametrize("granularity", list(Granularity))
def test_all_layouts_give_the_same_logits(
    make_reward_model: Callable[..., RewardModel],
    sequences: list[TokenSequence],
    head: RewardHead,
    granularity: Granularity,
) -> None:
    """Trap: scores and updates join prompts and completions, which the gradient penalty does not."""
    model, batch = make_reward_model(head, granularity).eval(), collate(sequences[:9], pad_id=0)
    mask = model.read_mask(batch)
    with torch.no_grad():
        share = torch.ones(len(batch), 1)
        padded = model.forward_embeddings(model.embed(batch), batch, batch.completion_ids, share)
        torch.testing.assert_close(model(batch)[mask], padded[mask], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.rewards(batch), back_fill(model(batch), mask), rtol=0, atol=0)


def test_only_the_first_layers_are_kept(
    untied_folder: Path, batch: TokenBatch, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 5)
    model = build_reward_model(str(untied_folder), spec, tokenizer, n_layers=1)
    whole = AutoModelForCausalLM.from_pretrained(untied_folder)
    hidden = whole(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True).hidden_states[1]
    expected = model.backbone.score(whole.base_model.norm(hidden))[:, -batch.completion_ids.size(1) :, 0]
    mask = batch.completion_mask.bool()
    assert torch.allclose(model(batch)[mask], expected[mask], atol=1e-5)
    model.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert torch.allclose(load_reward_model(tmp_path).rewards(batch), model.rewards(batch), atol=1e-5)
    with pytest.raises(UserError, match=r"model\.reward_layers=3: .* has 2 layers"):
        build_reward_model(str(untied_folder), spec, tokenizer, n_layers=3)


@pytest.mark.parametrize("logit", list(DiscriminatorLogit))
def test_total_is_what_the_discriminator_classifies(logit: DiscriminatorLogit, make_reward_model: MakeModel) -> None:
    scored = make_reward_model(logit=logit).score("Tom has 3 apples.", "<think>\n3 + 4 = 7\n</think>")
    total = sum(scored.rewards)
    assert scored.total == pytest.approx(total if logit == DiscriminatorLogit.additive else total / len(scored.rewards))
