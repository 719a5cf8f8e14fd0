import math

import pytest
import torch

from reasoning_irl.config.schema import ClassifierLoss
from reasoning_irl.training.losses import (
    LOSSES,
    LossInputs,
    bce_loss,
    masked_mean,
    pairwise_loss,
    sequence_weights,
    token_policy_loss,
    wgan_loss,
)

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
EXPERT_FIRST = torch.tensor([True, False])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_every_loss_has_a_row() -> None:
    assert set(LOSSES) == set(ClassifierLoss)


def test_bce_by_hand() -> None:
    """Each sequence counts as the mean over its own tokens; masked tokens (99) are ignored."""
    logits = torch.tensor([[LN3, 0.0, 99.0], [LN3, 99.0, 99.0]])
    # expert: D = 3/4 and 1/2: -(ln .75 + ln .5) / 2; negative: D = 3/4: -ln .25; then the mean of the two.
    expert = -(math.log(0.75) + math.log(0.5)) / 2
    by_hand = (expert + LN4) / 2
    assert bce_loss(logits, MASK, EXPERT_FIRST, 0.0, False).item() == pytest.approx(by_hand, rel=1e-6)


def test_label_smoothing_uses_the_published_targets() -> None:
    """Trap: smoothing .1 means targets .95 and .05, not .9 and .1."""
    logits = torch.tensor([[LN3], [-LN3]])
    # D = 3/4 for the expert, 1/4 for the negative: each costs -(.95 ln .75 + .05 ln .25).
    each = -(0.95 * math.log(0.75) + 0.05 * math.log(0.25))
    loss = bce_loss(logits, torch.ones(2, 1), EXPERT_FIRST, 0.1, False)
    assert loss.item() == pytest.approx(each, rel=1e-6)


def test_gradient_is_zero_at_the_smoothed_targets() -> None:
    logits = torch.tensor([[math.log(0.95 / 0.05)], [math.log(0.05 / 0.95)]], requires_grad=True)
    bce_loss(logits, torch.ones(2, 1), EXPERT_FIRST, 0.1, True).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-7


@pytest.mark.parametrize("kind", [ClassifierLoss.wgan, ClassifierLoss.pairwise])
def test_label_smoothing_affects_no_other_loss(kind: ClassifierLoss) -> None:
    """Trap: smoothed labels used as masks (0.95 of an expert, 0.05 of a negative)."""
    logits, group = torch.randn(4, 5), torch.tensor([0, 1, 0, 1])
    is_expert, mask = torch.tensor([True, True, False, False]), torch.ones(4, 5)
    plain, smoothed = (LOSSES[kind](LossInputs(logits, mask, is_expert, group, s, False, 0.5)) for s in (0.0, 0.3))
    assert torch.equal(plain, smoothed)


def test_class_balance_by_hand() -> None:
    """One expert against three negatives: weights 3 and 1, 1, 1, over 6."""
    is_expert = torch.tensor([True, False, False, False])
    expected = torch.tensor([3, 1, 1, 1]) / 6
    torch.testing.assert_close(sequence_weights(is_expert, True), expected)
    torch.testing.assert_close(sequence_weights(is_expert, False), torch.full((4,), 0.25))
    # D = 3/4 everywhere: 1/2 * -ln .75 + 1/2 * -ln .25
    logits = torch.full((4, 2), LN3)
    loss = bce_loss(logits, torch.ones(4, 2), is_expert, 0.0, True)
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, rel=1e-6)


@pytest.mark.parametrize("all_expert", [True, False])
def test_class_balance_with_one_class_is_finite(all_expert: bool) -> None:
    weights = sequence_weights(torch.full((3,), all_expert), True)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("kind", list(ClassifierLoss))
def test_sequences_have_equal_weight_whatever_their_length(kind: ClassifierLoss) -> None:
    """Trap: a mean over all tokens gives long traces more weight than short ones."""
    logits = torch.tensor([[0.3, 0, 0, 0], [-0.2, -0.2, -0.2, -0.2], [0.7, 0.7, 0, 0]], requires_grad=True)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    is_expert, group = torch.tensor([True, False, False]), torch.tensor([0, 0, 0])
    loss = LOSSES[kind](LossInputs(logits, mask, is_expert, group, 0.1, False, 0.5))
    short = torch.tensor([[0.3], [-0.2], [0.7]], requires_grad=True)
    same = LOSSES[kind](LossInputs(short, torch.ones(3, 1), is_expert, group, 0.1, False, 0.5))
    torch.testing.assert_close(loss, same)
    (gradient,) = torch.autograd.grad(loss, logits)
    (short_gradient,) = torch.autograd.grad(same, short)
    torch.testing.assert_close(gradient.sum(1), short_gradient[:, 0])
    assert not gradient[mask == 0].any()


def test_wgan_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0], [-1.0, -2.0, -3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    # negative: mean 5 of row 1 and -2 of row 2 = 1.5; expert: mean of 1, 3 = 2.
    is_expert = torch.tensor([True, False, False])
    assert wgan_loss(logits, mask, is_expert, score_penalty=0.0).item() == pytest.approx(1.5 - 2)
    # Squares: (1 + 9) / 2 of the expert; 25 and (1 + 4 + 9) / 3 of the negatives.
    square = (5 + (25 + 14 / 3) / 2) / 2
    assert wgan_loss(logits, mask, is_expert, score_penalty=0.1).item() == pytest.approx(1.5 - 2 + 0.1 * square)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_score_penalty_bounds_the_best_critic(weight: float) -> None:
    """Trap: without a penalty, WGAN's loss has no minimum. Two tokens: experts write the first in 3 of 4 cases."""
    token = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    is_expert = torch.tensor([True] * 4 + [False] * 4)
    f = torch.tensor([(3 - 1) / (3 + 1), (1 - 3) / (1 + 3)]).div(weight).requires_grad_()
    (gradient,) = torch.autograd.grad(wgan_loss(f[token, None], torch.ones(8, 1), is_expert, weight), f)
    torch.testing.assert_close(gradient, torch.zeros(2))


def test_pairwise_by_hand() -> None:
    """Trap: pairs across prompts, which here would be in the wrong order and cost much more."""
    # expert A 2, expert B 10, negative of A 1, negative of B 7: only (2, 1) and (10, 7) are compared.
    logits = torch.tensor([[2.0], [10.0], [1.0], [7.0]])
    is_expert, group = torch.tensor([True, True, False, False]), torch.tensor([0, 1, 0, 1])
    loss = pairwise_loss(logits, torch.ones(4, 1), is_expert, group)
    assert loss.item() == pytest.approx((softplus(-1) + softplus(-3)) / 2, rel=1e-6)


def test_pairwise_negative_without_an_expert_is_paired_with_every_expert() -> None:
    logits = torch.tensor([[2.0], [4.0], [1.0], [3.0]])
    is_expert, group = torch.tensor([True, True, False, False]), torch.tensor([0, 1, 0, 7])
    # (2, 1) for the first negative; (2, 3) and (4, 3) averaged for the second.
    by_hand = (softplus(-1) + (softplus(1) + softplus(-1)) / 2) / 2
    loss = pairwise_loss(logits, torch.ones(4, 1), is_expert, group)
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_pairwise_with_several_negatives_of_one_prompt() -> None:
    logits = torch.tensor([[0.5], [0.0], [1.0], [2.0]])
    is_expert, group = torch.tensor([True, False, False, False]), torch.zeros(4, dtype=torch.long)
    by_hand = (softplus(-0.5) + softplus(0.5) + softplus(1.5)) / 3
    loss = pairwise_loss(logits, torch.ones(4, 1), is_expert, group)
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_pairwise_on_whole_traces_is_the_relativistic_loss_of_gad() -> None:
    """Ye et al. 2025 (arXiv 2511.10643): -log sigmoid(D(expert) - D(sample)) over the samples of each prompt."""
    n_prompts, n_samples = 3, 4
    scores = torch.randn(n_prompts * (1 + n_samples), 1, dtype=torch.float64)
    group = torch.arange(n_prompts).repeat(1 + n_samples)  # the experts come first
    is_expert = torch.arange(len(scores)) < n_prompts
    terms = []
    for prompt in range(n_prompts):
        expert = scores[prompt, 0].item()
        for sample in range(n_samples):
            difference = expert - scores[n_prompts * (1 + sample) + prompt, 0].item()
            terms.append(-math.log(1 / (1 + math.exp(-difference))))
    loss = pairwise_loss(scores, torch.ones_like(scores), is_expert, group)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_masked_mean_of_an_empty_row_is_zero() -> None:
    assert masked_mean(torch.ones(1, 3), torch.zeros(1, 3)).item() == 0


def test_policy_loss_by_hand() -> None:
    """Probability ratios 2, 1/2, 1.1 and 1; epsilon is 0.2."""
    old = torch.tensor([[-1.0, -1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]])
    new = old + torch.log(torch.tensor([2.0, 0.5, 1.1, 1.0]))
    advantages = torch.tensor([[1.0, 1.0, 2.0, 0.0], [-1.0, -1.0, -2.0, 3.0]])
    terms = token_policy_loss(new, old, advantages, 0.2)
    # A > 0: -min(r A, clip(r) A): 2 -> 1.2, .5 stays, 1.1 stays; A < 0: 2 stays, .5 -> .8, 1.1 stays.
    expected = torch.tensor([[-1.2, -0.5, -2.2, 0.0], [2.0, 0.8, 2.2, -3.0]])
    torch.testing.assert_close(terms.loss, expected)
    assert terms.is_clipped.tolist() == [[True, False, False, False], [False, True, False, False]]
    assert terms.kl is None


def test_clipped_tokens_get_no_policy_gradient() -> None:
    old = torch.zeros(1, 4)
    new = torch.log(torch.tensor([[2.0, 0.5, 2.0, 0.5]])).requires_grad_()
    terms = token_policy_loss(new, old, torch.tensor([[1.0, 1.0, -1.0, -1.0]]), 0.2)
    terms.loss.sum().backward()
    # d(-r A)/d log p = -r A if the clip is not active.
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, -0.5, 2.0, 0.0]]))


def test_policy_gradient_has_the_right_sign() -> None:
    """Trap: a flipped sign. A gradient step makes tokens with a positive advantage likelier."""
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    logps = torch.log_softmax(logits, -1)[..., 0]
    advantages = torch.tensor([[1.0, -1.0, 0.0]])
    token_policy_loss(logps, logps.detach(), advantages, 0.2).loss.sum().backward()
    assert logits.grad is not None
    after = torch.log_softmax(logits.detach() - 0.1 * logits.grad, -1)[..., 0]
    change = (after - logps.detach())[0].tolist()
    assert change[0] > 1e-3
    assert change[1] < -1e-3
    assert change[2] == 0


def test_tokens_with_zero_advantage_stay_in_the_loss() -> None:
    """Trap: dropping tokens whose advantage is exactly 0; they still have a KL term and count in the mean."""
    logps = torch.tensor([[-1.0, -1.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-1.0, -1.0 + LN2, -1.0]])
    advantages, mask = torch.tensor([[0.0, 0.0, 3.0]]), torch.ones(1, 3)
    terms = token_policy_loss(logps, logps.detach(), advantages, 0.2, reference, beta=0.5)
    assert terms.loss.shape == advantages.shape
    # token 1: KL = exp(ln 2) - ln 2 - 1 = 1 - ln 2, times beta; token 2: -3; the mean is over all three.
    expected = [0.0, 0.5 * (1 - LN2), -3.0]
    torch.testing.assert_close(terms.loss, torch.tensor([expected]))
    assert terms.kl is not None
    torch.testing.assert_close(terms.kl, torch.tensor([[0.0, 1 - LN2, 0.0]]))
    assert masked_mean(terms.loss, mask).item() == pytest.approx(sum(expected) / 3)
    terms.loss.sum().backward()
    # d KL / d log p = 1 - exp(q - p) = -1 at token 1, which pulls it towards the reference.
    torch.testing.assert_close(logps.grad, torch.tensor([[0.0, -0.5, -3.0]]))


def test_kl_is_never_negative() -> None:
    logps, reference = -torch.rand(8, 9) * 5, -torch.rand(8, 9) * 5
    terms = token_policy_loss(logps, logps, torch.zeros(8, 9), 0.2, reference, beta=1.0)
    assert terms.kl is not None
    assert terms.kl.min().item() >= 0


def test_sampling_ratio_weighs_the_surrogate_and_not_the_kl() -> None:
    logps, old, reference = torch.randn(3, 2, 5)
    ratio, advantages = torch.rand(2, 5), torch.randn(2, 5)
    plain = token_policy_loss(logps, old, advantages, 0.2)
    weighed = token_policy_loss(logps, old, advantages, 0.2, reference, 0.5, ratio)
    assert weighed.kl is not None
    torch.testing.assert_close(weighed.loss, plain.loss * ratio + 0.5 * weighed.kl)
