import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, get_scheduler, set_seed

from reasoning_irl.config.schema import ClassifierLoss, DiscriminatorLogit, Granularity, IRLTrainConfig, RewardHead
from reasoning_irl.data import tokens
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.models.granularity import back_fill, segment_mean
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, Origin, label_batch
from reasoning_irl.training.losses import masked_mean

Make = Callable[..., Discriminator]
LOSSES = [
    ["model.classifier_loss=bce"],
    ["model.classifier_loss=wgan", "model.gradient_penalty=0"],
    ["model.classifier_loss=pairwise"],
    ["model.classifier_loss=wgan", "model.gradient_penalty=0", "model.score_penalty=0.5"],
    ["model.classifier_loss=bce", "model.reward_lm_coef=0.3"],
]
LOSS_NAMES = ["bce", "wgan", "pairwise"]
WGAN = ["model.classifier_loss=wgan", "model.gradient_penalty=10", "model.reward_micro_batch_size=3"]


@pytest.fixture
def make(tiny_config: Callable[..., IRLTrainConfig], make_reward_model: Callable[..., RewardModel]) -> Make:
    """A discriminator with the same weights each time; with `sgd`, parameters change by their clipped gradient."""

    def build(*overrides: str, sgd: bool = False, updates: int = 100, **model: object) -> Discriminator:
        config = tiny_config([*overrides]).model
        discriminator = Discriminator(make_reward_model(**model), config, updates)
        if sgd:
            discriminator.optimizer = torch.optim.SGD(discriminator.parameters, lr=1.0)
            discriminator.scheduler = get_scheduler("constant", discriminator.optimizer)
        return discriminator

    return build


@pytest.fixture
def batch(sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast) -> LabelledBatch:
    """Eight sequences of unequal lengths: 3 experts, 3 policy samples, 2 perturbed copies of the first experts."""
    experts = sequences[:3]
    policy = [sequences[3], TokenSequence(sequences[0].prompt_ids, sequences[4].completion_ids[:9]), sequences[5]]
    perturbed = [TokenSequence(s.prompt_ids, s.completion_ids[::-1]) for s in experts[:2]]
    labelled = label_batch(experts, policy, perturbed, tokenizer.pad_token_id)
    assert len(set(labelled.tokens.completion_mask.sum(1).tolist())) > 3
    return labelled


def gradient(discriminator: Discriminator, batch: LabelledBatch) -> Tensor:
    """What one update with plain SGD subtracts from the parameters, as one vector."""
    before = [p.detach().clone() for p in discriminator.parameters]
    discriminator.update(batch)
    return torch.cat([(b - p.detach()).flatten() for b, p in zip(before, discriminator.parameters, strict=True)])


def unclipped(*overrides: str) -> list[str]:
    return [*overrides, "model.reward_max_grad_norm=1000000"]


@pytest.mark.parametrize("loss", LOSSES, ids=[*LOSS_NAMES, "wgan_score_penalty", "bce_and_likelihood"])
@pytest.mark.parametrize("head", list(RewardHead))
@pytest.mark.parametrize("granularity", [Granularity.dense, Granularity.step])
@pytest.mark.parametrize("logit", list(DiscriminatorLogit))
def test_micro_batch_size_does_not_change_the_gradient(
    loss: list[str],
    head: RewardHead,
    granularity: Granularity,
    logit: DiscriminatorLogit,
    make: Make,
    batch: LabelledBatch,
) -> None:
    """Trap: normalising the loss per micro-batch, so that its size affects training."""
    gradients = [
        gradient(
            make(
                *unclipped(*loss, f"model.reward_micro_batch_size={n}"),
                sgd=True,
                head=head,
                granularity=granularity,
                logit=logit,
            ),
            batch,
        )
        for n in (8, 3, 1)
    ]
    assert gradients[0].norm().item() > 1e-3
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-5)


def kept_bytes(discriminator: Discriminator, batch: LabelledBatch) -> int:
    """What the graph of an update keeps for the backward pass, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in discriminator.model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value  # held, so that no address is used twice
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        discriminator.model(batch.tokens)
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("loss", LOSSES, ids=[*LOSS_NAMES, "wgan_score_penalty", "bce_and_likelihood"])
def test_checkpointed_layers_give_the_same_gradient(loss: list[str], make: Make, batch: LabelledBatch) -> None:
    """Trap: the library ignores checkpointing unless the model is in training mode."""
    plain, checkpointed = (make(*unclipped(*loss, "model.reward_micro_batch_size=3"), sgd=True) for _ in range(2))
    checkpointed.model.checkpoint_layers()
    assert kept_bytes(checkpointed, batch) < 0.5 * kept_bytes(plain, batch)
    torch.testing.assert_close(gradient(checkpointed, batch), gradient(plain, batch), rtol=1e-4, atol=1e-6)


def test_checkpointed_gradient_penalty_is_the_same(make: Make, batch: LabelledBatch) -> None:
    gradients = []
    for is_checkpointed in (False, True):
        discriminator = make(*unclipped(*WGAN), sgd=True)
        if is_checkpointed:
            discriminator.model.checkpoint_layers()
        torch.manual_seed(3)
        gradients.append(gradient(discriminator, batch))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("loss", "n_passes"), [("bce", 1), ("pairwise", 2)])
def test_each_sequence_is_read_as_often_as_its_loss_needs(
    loss: str, n_passes: int, make: Make, batch: LabelledBatch
) -> None:
    discriminator = make(f"model.classifier_loss={loss}", "model.reward_micro_batch_size=3")
    shapes: list[tuple[int, ...]] = []
    embeddings = discriminator.model.backbone.get_input_embeddings()
    embeddings.register_forward_hook(lambda _module, given, _out: shapes.append(tuple(given[0].shape)))
    discriminator.update(batch)
    assert sum(n for n, _ in shapes) == n_passes * len(batch.tokens)
    assert len({width for _, width in shapes}) > 1  # each micro-batch has its own width


def test_pairs_that_fit_in_one_micro_batch_are_read_once(
    make: Make, batch: LabelledBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts with less padding would each be read twice, as the loss compares their sequences."""
    monkeypatch.setattr(tokens, "PASS_COST", 0)
    assert len(batch.tokens.by_length(len(batch.tokens))) > 1
    discriminator = make("model.classifier_loss=pairwise", f"model.reward_micro_batch_size={len(batch.tokens)}")
    n_read: list[int] = []
    embeddings = discriminator.model.backbone.get_input_embeddings()
    embeddings.register_forward_hook(lambda _module, given, _out: n_read.append(len(given[0])))
    discriminator.update(batch)
    assert n_read == [len(batch.tokens)]


def test_micro_batch_size_does_not_change_metrics_or_clipping(make: Make, batch: LabelledBatch) -> None:
    whole, split = (make(f"model.reward_micro_batch_size={n}").update(batch) for n in (8, 2))
    assert whole == pytest.approx(split, rel=1e-4)


def test_gradient_is_clipped_by_its_total_norm(make: Make, batch: LabelledBatch) -> None:
    discriminator = make("model.reward_max_grad_norm=0.01", "model.reward_micro_batch_size=2", sgd=True)
    assert gradient(discriminator, batch).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_padding_does_not_change_the_gradient(make: Make, sequences: list[TokenSequence]) -> None:
    """Trap: padding to the longer sequences of a batch changes the gradient."""
    experts, policy = sequences[:2], sequences[2:4]
    narrow = label_batch(experts, policy, [], 0)
    wide = label_batch([*experts, sequences[5]], [*policy, sequences[6]], [], 0)
    trimmed = LabelledBatch(
        type(wide.tokens)(
            *(x[[0, 1, 3, 4]] for x in (wide.tokens.prompt_ids, wide.tokens.prompt_mask)),
            *(x[[0, 1, 3, 4]] for x in (wide.tokens.completion_ids, wide.tokens.completion_mask)),
        ),
        wide.origin[[0, 1, 3, 4]],
        wide.group[[0, 1, 3, 4]],
    )
    a, b = (gradient(make(*unclipped(), sgd=True), x) for x in (narrow, trimmed))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_labelled_batch_is_grouped_by_prompt(
    sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Trap: grouping a negative by its position in the batch instead of by its prompt."""
    a, b, c = sequences[:3]
    perturbed = [TokenSequence(s.prompt_ids, s.completion_ids[:4]) for s in (b, b, a)]
    policy = [TokenSequence(c.prompt_ids, a.completion_ids), TokenSequence(a.prompt_ids, c.completion_ids)]
    batch = label_batch([a, b], policy, perturbed, tokenizer.pad_token_id)
    assert batch.group.tolist() == [0, 1, 2, 0, 1, 1, 0]
    assert batch.origin.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert batch.is_expert.tolist() == [True, True, False, False, False, False, False]
    assert batch.tokens.sequences() == [a, b, *policy, *perturbed]


@pytest.mark.parametrize("head", list(RewardHead))
def test_gradient_penalty_reaches_the_parameters(head: RewardHead, make: Make, batch: LabelledBatch) -> None:
    """Trap: WGAN without a Lipschitz constraint, or a penalty without a gradient to the parameters."""
    gradients = {}
    for weight in (0, 1, 10):
        discriminator = make(*unclipped(*WGAN, f"model.gradient_penalty={weight}"), sgd=True, head=head)
        set_seed(3)  # the same pairs and interpolations
        gradients[weight] = gradient(discriminator, batch)
        assert gradients[weight].isfinite().all()
    penalty = gradients[1] - gradients[0]
    assert penalty.norm().item() > 1e-3
    torch.testing.assert_close(gradients[10] - gradients[0], 10 * penalty, rtol=1e-3, atol=1e-3)


def test_gradient_penalty_by_hand(
    make: Make, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Traps: the slope in the prompt counted; a mix with another question's trace."""
    expert, alone, other = sequences[:3]
    assert len({expert.prompt_ids, alone.prompt_ids, other.prompt_ids}) == 3
    # The only negative of the first one's prompt is its own trace, and the second one has none, so that nothing depends
    # on how two traces are mixed.
    batch = label_batch([expert, alone], [other, expert], [], tokenizer.pad_token_id)
    discriminator = make("model.classifier_loss=wgan", "model.gradient_penalty=10")
    decoder, head = discriminator.model.backbone.base_model, discriminator.model.backbone.score
    by_hand = 0.0
    for trace in (expert, alone):
        ids, n = torch.tensor([[*trace.prompt_ids, *trace.completion_ids]]), len(trace.completion_ids)
        embeddings = decoder.get_input_embeddings()(ids).detach().requires_grad_()
        f = head(decoder(inputs_embeds=embeddings).last_hidden_state)[0, -n:, 0]
        (slope,) = torch.autograd.grad(f.mean(), embeddings)
        by_hand += 10 * (slope[:, -n:].norm().item() - 1) ** 2 / 2
        assert (slope[:, :-n].norm() > 1e-5).item()  # or the first trap would not be seen
    metrics = discriminator.update(batch)
    assert metrics["discriminator/gradient_penalty"] == pytest.approx(by_hand, rel=1e-4)


def test_gradient_penalty_mixes_an_expert_with_its_negatives(
    make: Make, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    expert, alone = sequences[:2]
    own = [TokenSequence(expert.prompt_ids, expert.completion_ids[n:]) for n in (1, 2, 3)]
    batch = label_batch([alone, expert], [sequences[2], own[0]], own[1:], tokenizer.pad_token_id)
    discriminator = make(*WGAN)
    set_seed(3)
    drawn = {tuple(discriminator._pairs_of_one_prompt(batch)[1].tolist()) for _ in range(30)}
    assert drawn == {(0, 3), (0, 4), (0, 5)}
    # And what is mixed is what was drawn.
    found = []
    for negative in own[:2]:
        set_seed(3)
        other = label_batch([expert], [negative], [], tokenizer.pad_token_id)
        found.append(make(*WGAN).update(other)["discriminator/gradient_penalty"])
    assert abs(found[0] - found[1]) > 1e-4


def test_score_penalty_reaches_the_loss(make: Make, batch: LabelledBatch) -> None:
    losses = {}
    for weight in (0.0, 0.5):
        discriminator = make("model.classifier_loss=wgan", "model.gradient_penalty=0", f"model.score_penalty={weight}")
        with torch.no_grad():
            square = masked_mean(discriminator.model(batch.tokens) ** 2, batch.tokens.completion_mask)
        losses[weight] = discriminator.update(batch)["discriminator/loss"]
    by_hand = (square[batch.is_expert].mean() + square[~batch.is_expert].mean()) / 2
    assert losses[0.5] - losses[0.0] == pytest.approx(0.5 * by_hand.item(), rel=1e-3)


def test_gradient_penalty_ignores_negatives_of_other_prompts(
    make: Make, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    own = TokenSequence(sequences[0].prompt_ids, sequences[0].completion_ids[::-1])
    found = []
    for other in sequences[2:4]:
        discriminator = make("model.classifier_loss=wgan", "model.gradient_penalty=10")
        # Experts of two prompts, one of them without a negative of its own.
        batch = label_batch(sequences[:2], [other, other, own], [], tokenizer.pad_token_id)
        set_seed(3)
        found.append(discriminator.update(batch)["discriminator/gradient_penalty"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_gradient_penalty_does_not_depend_on_the_micro_batch_size(make: Make, batch: LabelledBatch) -> None:
    found = []
    for size in (1, 3):
        discriminator = make(*unclipped(*WGAN, f"model.reward_micro_batch_size={size}"), sgd=True)
        set_seed(3)
        metrics = discriminator.update(batch)
        found.append(metrics["discriminator/gradient_penalty"])
        assert found[-1] > 0
    # Interpolation weights are the same whether they are drawn one by one or all at once.
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_gradient_penalty_pulls_the_slope_towards_one(make: Make, batch: LabelledBatch) -> None:
    discriminator = make(*WGAN, "model.reward_learning_rate=0.005", "model.gradient_penalty=10")
    with torch.no_grad():
        discriminator.model.backbone.score.weight *= 200  # far too steep
    penalties = [discriminator.update(batch)["discriminator/gradient_penalty"] for _ in range(25)]
    assert penalties[0] > 10
    assert penalties[-1] < penalties[0] / 4


@pytest.mark.parametrize("n", [1, 3])
def test_every_update_is_an_optimiser_step(n: int, make: Make, batch: LabelledBatch) -> None:
    """Trap: several updates accumulated into one step."""
    discriminator = make("model.reward_micro_batch_size=3")
    for _ in range(n):
        discriminator.update(batch)
    steps = {int(state["step"]) for state in discriminator.optimizer.state.values()}
    assert steps == {n}
    assert discriminator.scheduler.last_epoch == n
    assert all(p.grad is None for p in discriminator.parameters)


def test_restored_discriminator_takes_the_same_steps(make: Make, batch: LabelledBatch) -> None:
    overrides = ["model.reward_lr_scheduler_type=cosine", "model.reward_warmup_ratio=0.1"]
    discriminator, resumed = make(*overrides), make(*overrides)
    for _ in range(12):
        discriminator.update(batch)
    resumed.model.load_state_dict(discriminator.model.state_dict())
    resumed.load_state_dict(copy.deepcopy(discriminator.state_dict()))
    assert discriminator.update(batch) == pytest.approx(resumed.update(batch))
    for a, b in zip(discriminator.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("head", list(RewardHead))
def test_separable_toy_data_is_learnt(
    loss: str, head: RewardHead, make: Make, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    """All negatives have a marker that no expert has: the word `shells` as their second token."""
    marker = tokenizer.convert_tokens_to_ids("shells")

    def toy(rows: slice) -> LabelledBatch:
        experts = sequences[rows]
        negatives = [TokenSequence(s.prompt_ids, (s.completion_ids[0], marker, *s.completion_ids[2:])) for s in experts]
        return label_batch(experts, [], negatives, tokenizer.pad_token_id)

    alone = "model.reward_lm_coef=0"  # the loss alone, without the regulariser
    discriminator = make(f"model.classifier_loss={loss}", "model.reward_learning_rate=0.01", alone, head=head)
    train, test = toy(slice(0, 24)), toy(slice(24, 40))
    for _ in range(59):
        discriminator.update(train)
    scores = discriminator.trace_scores(discriminator.rewards(test.tokens), test.tokens)
    ordered = scores[test.is_expert][:, None] > scores[~test.is_expert][None]
    if loss == "pairwise":  # compares only traces of the same prompt
        ordered = ordered.diagonal()
    assert ordered.float().mean().item() > 0.95
    if loss == "bce":  # the other losses only compare traces and do not fix the zero
        metrics = discriminator.update(train)
        assert metrics["discriminator/accuracy_expert"] > 0.95
        assert metrics["discriminator/accuracy_perturbed"] > 0.95


def test_additive_trace_is_scored_by_its_sum(make: Make, batch: LabelledBatch) -> None:
    """Trap: a reward learnt as a sum and measured by its mean, which longer traces change."""
    tokens = batch.tokens
    for logit in DiscriminatorLogit:
        discriminator = make(logit=logit)
        rewards = discriminator.rewards(tokens)
        sums, lengths = (rewards * tokens.completion_mask).sum(1), tokens.completion_mask.sum(1)
        expected = sums if logit == DiscriminatorLogit.additive else sums / lengths
        torch.testing.assert_close(discriminator.trace_scores(rewards, tokens), expected)


def test_accuracies_are_reported_by_origin(make: Make, batch: LabelledBatch) -> None:
    discriminator = make(sgd=True)
    tokens = batch.tokens
    with torch.no_grad():
        looks_expert = masked_mean(discriminator.logits(tokens), tokens.completion_mask) > 0
    metrics = discriminator.update(batch)
    for origin in Origin:
        rows = batch.origin == origin
        right = looks_expert[rows] if origin == Origin.expert else ~looks_expert[rows]
        assert metrics[f"discriminator/accuracy_{origin.name}"] == pytest.approx(right.float().mean().item())


def test_missing_origin_has_no_accuracy(
    make: Make, sequences: list[TokenSequence], tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = label_batch(sequences[:2], sequences[2:4], [], tokenizer.pad_token_id)
    assert "discriminator/accuracy_perturbed" not in make().update(batch)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_does_not_change_accuracies(smoothing: float, make: Make, batch: LabelledBatch) -> None:
    """Trap: smoothed labels used as masks."""
    plain = make("model.disc_label_smoothing=0.1").update(batch)
    other = make(f"model.disc_label_smoothing={smoothing}").update(batch)
    names = [name for name in plain if "accuracy" in name]
    assert len(names) == 3
    assert [plain[name] for name in names] == [other[name] for name in names]


@pytest.mark.parametrize("granularity", list(Granularity))
def test_airl_form_subtracts_the_log_probability_of_the_policy(
    granularity: Granularity, make: Make, batch: LabelledBatch
) -> None:
    """f - log pi (Fu et al. 2018); at coarser granularities, the mean of log pi over a segment."""
    discriminator = make("model.reward_micro_batch_size=3", granularity=granularity)
    tokens, policy_logps = batch.tokens, -torch.rand(batch.tokens.completion_ids.shape)
    read = discriminator.model.read_mask(tokens)
    with torch.no_grad():
        f = discriminator.model(tokens)
        plain, airl = discriminator.logits(tokens), discriminator.logits(tokens, policy_logps)
    assert torch.equal(plain, f)
    pooled = segment_mean(policy_logps, read, tokens.completion_mask)
    torch.testing.assert_close(airl[read], (f - pooled)[read])
    rewards = discriminator.rewards(tokens, policy_logps)
    torch.testing.assert_close(rewards, back_fill(f - pooled, read), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", [Granularity.dense, Granularity.sparse])
def test_additive_logit_of_a_prefix_is_the_sum_over_its_tokens(
    granularity: Granularity, make: Make, batch: LabelledBatch
) -> None:
    """And the reward is f at its own token, at every granularity, with nothing back-filled or averaged."""
    discriminator = make(
        "model.reward_micro_batch_size=3",
        granularity=granularity,
        logit=DiscriminatorLogit.additive,
        head=RewardHead.likelihood,
    )
    tokens, policy_logps = batch.tokens, -torch.rand(batch.tokens.completion_ids.shape)
    mask = tokens.completion_mask
    with torch.no_grad():
        f, log_likelihood = discriminator.model.logits_and_likelihood(tokens)
        logits = discriminator.logits(tokens, policy_logps)
    bias = discriminator.model.likelihood.bias.item()
    torch.testing.assert_close(f * mask, (log_likelihood + bias) * mask)  # a new head, not pooled over segments
    for row, length in enumerate(mask.sum(1).tolist()):
        running = 0.0
        for t in range(length):
            running += (f[row, t] - policy_logps[row, t]).item()
            assert logits[row, t].item() == pytest.approx(running, abs=1e-4)
    rewards = discriminator.rewards(tokens, policy_logps)
    torch.testing.assert_close(rewards, (f - policy_logps) * mask, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(discriminator.model.rewards(tokens), f * mask, rtol=1e-4, atol=1e-5)


def test_non_finite_update_changes_nothing(make: Make, sequences: list[TokenSequence]) -> None:
    """Trap: an update without negatives, whose Wasserstein loss is NaN, and NaN in every weight after it."""
    discriminator = make("model.classifier_loss=wgan", "model.gradient_penalty=0")
    before = copy.deepcopy(discriminator.model.state_dict())
    metrics = discriminator.update(label_batch(sequences[:2], [], [], 0))
    assert metrics["discriminator/skipped"] == 1.0
    assert all(torch.equal(value, before[name]) for name, value in discriminator.model.state_dict().items())
    assert discriminator.update(label_batch(sequences[:2], sequences[2:4], [], 0))["discriminator/skipped"] == 0.0


def test_loss_is_computed_on_the_airl_form(make: Make, batch: LabelledBatch) -> None:
    discriminator = make("model.reward_micro_batch_size=3")
    base = discriminator.update(batch)["discriminator/loss"]
    # log pi = -20 everywhere, so the logit is about 20: right for 3 experts, wrong for 5 negatives.
    logps = torch.full(batch.tokens.completion_ids.shape, -20.0)
    likely = LabelledBatch(batch.tokens, batch.origin, batch.group, logps)
    metrics = make("model.reward_micro_batch_size=3").update(likely)
    assert metrics["discriminator/accuracy_expert"] == 1
    assert metrics["discriminator/accuracy_policy"] == metrics["discriminator/accuracy_perturbed"] == 0
    # class balance: 1/2 * (.05 * 20) + 1/2 * (.95 * 20) = 10, up to the small f
    assert metrics["discriminator/loss"] == pytest.approx(10, abs=1)
    assert base < 2


@pytest.mark.parametrize("granularity", list(Granularity))
def test_rewards_are_logits_over_the_temperature_clipped_and_back_filled(
    granularity: Granularity, make: Make, batch: LabelledBatch
) -> None:
    tokens = batch.tokens
    clip = ["model.clip_reward_model=true", "model.reward_lb=-0.02", "model.reward_ub=0.03"]
    plain = make(granularity=granularity)
    warm = make("model.disc_temperature=2", granularity=granularity)
    clipped = make("model.disc_temperature=2", *clip, "model.reward_micro_batch_size=3", granularity=granularity)
    read = plain.model.read_mask(tokens)
    with torch.no_grad():
        logits = plain.model(tokens)
    torch.testing.assert_close(plain.rewards(tokens), back_fill(logits, read))
    torch.testing.assert_close(warm.rewards(tokens), back_fill(logits / 2, read))
    expected = back_fill((logits / 2).clamp(-0.02, 0.03), read)
    torch.testing.assert_close(clipped.rewards(tokens), expected, rtol=1e-4, atol=1e-6)
    assert expected.min().item() == pytest.approx(-0.02)
    assert not plain.rewards(tokens)[tokens.completion_mask == 0].any()


def test_scoring_builds_no_graph_and_changes_nothing(make: Make, batch: LabelledBatch) -> None:
    discriminator = make()
    before = copy.deepcopy(discriminator.model.state_dict())
    assert not discriminator.rewards(batch.tokens).requires_grad
    after = discriminator.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_trace_score_is_the_mean_over_the_tokens_of_the_trace(make: Make, batch: LabelledBatch) -> None:
    discriminator = make()
    rewards = discriminator.rewards(batch.tokens)
    lengths = batch.tokens.completion_mask.sum(1).tolist()
    expected = [rewards[i, :n].mean().item() for i, n in enumerate(lengths)]
    assert discriminator.trace_scores(rewards, batch.tokens).tolist() == pytest.approx(expected, rel=1e-4)


def test_likelihood_term_is_only_about_the_experts(make: Make, batch: LabelledBatch) -> None:
    """The mean of -log p over each expert's own tokens, then over experts, times the coefficient."""
    discriminator = make("model.reward_lm_coef=0.5", head=RewardHead.likelihood)
    with torch.no_grad():
        _, log_likelihood = discriminator.model.logits_and_likelihood(batch.tokens)
    lengths = batch.tokens.completion_mask.sum(1).tolist()
    nll = [-log_likelihood[i, : lengths[i]].mean().item() for i in range(3)]  # the first three are experts
    with_term = discriminator.update(batch)["discriminator/loss"]
    without = make("model.reward_lm_coef=0", head=RewardHead.likelihood).update(batch)["discriminator/loss"]
    assert with_term - without == pytest.approx(0.5 * sum(nll) / 3, rel=1e-4)


def test_every_loss_is_tested() -> None:
    assert [loss.value for loss in ClassifierLoss] == LOSS_NAMES


def test_another_process_can_host_the_discriminator(make: Make, batch: LabelledBatch) -> None:
    """The contract of docs/scaling.md: batches, metrics, rewards and state can be sent as messages."""

    def sent(message: object) -> Any:
        return pickle.loads(pickle.dumps(message))

    here, there = make(), make()
    metrics = there.update(sent(batch))
    assert sent(metrics) == here.update(batch)
    assert all(type(value) is float for value in metrics.values())
    rewards = sent(there.rewards(sent(batch.tokens)))
    assert rewards.shape == batch.tokens.completion_ids.shape
    assert not rewards[batch.tokens.completion_mask == 0].any()
    assert torch.equal(rewards, here.rewards(batch.tokens))
    assert sent(there.trace_scores(rewards, batch.tokens)).shape == (len(batch.tokens),)

    moved = make(seed=1)  # another host goes on
    moved.model.load_state_dict(sent(there.model.state_dict()))
    moved.load_state_dict(sent(there.state_dict()))
    assert moved.update(batch) == here.update(batch)
