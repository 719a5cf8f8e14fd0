"""Losses of the discriminator and of the policy, as pure functions of tensors.

A discriminator loss takes the logits of one whole update, `logits_expert_is_high` (B, T), the mask of the tokens that
count (B, T), and `is_expert` (B,). Every sequence has the same weight whatever its length: its term is the mean over
its counted tokens.

To add a loss, add its name to `config.schema.ClassifierLoss`, and its function and a row of LOSSES here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from reasoning_irl.config.schema import ClassifierLoss


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of each row over the tokens whose mask is 1."""
    weight = mask.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def sequence_weights(is_expert: Tensor, class_balance: bool) -> Tensor:
    """(B,) weights that sum to 1; with `class_balance`, experts and negatives have the same total weight."""
    expert = is_expert.to(torch.float32)
    weights = torch.ones_like(expert)
    n_expert, n_negative = expert.sum(), (1 - expert).sum()
    if class_balance and n_expert > 0 and n_negative > 0:
        weights = torch.where(is_expert.bool(), n_negative / n_expert, weights)
    return weights / weights.sum()


def bce_loss(
    logits_expert_is_high: Tensor,
    mask: Tensor,
    is_expert: Tensor,
    label_smoothing: float,
    class_balance: bool,
) -> Tensor:
    """Binary cross-entropy per token; label smoothing s moves the targets to 1 - s/2 and s/2 (.95 and .05 for .1)."""
    expert = is_expert.to(logits_expert_is_high.dtype)[:, None]
    targets = (expert * (1 - label_smoothing) + label_smoothing / 2).expand_as(logits_expert_is_high)
    per_token = binary_cross_entropy_with_logits(logits_expert_is_high, targets, reduction="none")
    return (masked_mean(per_token, mask) * sequence_weights(is_expert, class_balance)).sum()


def wgan_loss(logits_expert_is_high: Tensor, mask: Tensor, is_expert: Tensor, score_penalty: float) -> Tensor:
    """E[f(negative)] - E[f(expert)] (Arjovsky et al. 2017) + score_penalty * E[f^2], half of it over each class.

    Without a penalty it has no minimum. With this one, the best f of a prefix, if any f could be learnt, would be
    (p_E - p_N) / (p_E + p_N) / score_penalty, where p_E and p_N are how often experts and negatives have it: the critic
    of Fisher GAN (Mroueh and Sercu 2017, arXiv 1705.09675) with a weight in place of its constraint. The gradient
    penalty is the caller's.
    """
    score, expert = masked_mean(logits_expert_is_high, mask), is_expert.bool()
    square = masked_mean(logits_expert_is_high**2, mask)
    difference = score[~expert].mean() - score[expert].mean()
    return difference + score_penalty * (square[~expert].mean() + square[expert].mean()) / 2


def pairwise_loss(logits_expert_is_high: Tensor, mask: Tensor, is_expert: Tensor, group: Tensor) -> Tensor:
    """-log sigmoid(s_expert - s_negative), averaged over pairs (Bradley and Terry 1952).

    A negative is paired with the experts of its own prompt (the same `group` (B,)), or with every expert if the batch
    has none for its prompt.
    """
    score, expert = masked_mean(logits_expert_is_high, mask), is_expert.bool()
    same_prompt = group[expert][:, None] == group[~expert][None, :]  # (E, N)
    pairs = same_prompt | ~same_prompt.any(0, keepdim=True)
    losses = softplus(score[~expert][None, :] - score[expert][:, None])
    # Every negative has the same weight, however many experts it is paired with.
    return ((losses * pairs).sum(0) / pairs.sum(0)).mean()


@dataclass(frozen=True)
class LossInputs:
    """One discriminator update, as its loss sees it."""

    logits_expert_is_high: Tensor  # (B, T)
    mask: Tensor  # (B, T)
    is_expert: Tensor  # (B,)
    group: Tensor  # (B,) equal for equal prompts
    label_smoothing: float
    class_balance: bool
    score_penalty: float


LOSSES: dict[ClassifierLoss, Callable[[LossInputs], Tensor]] = {
    ClassifierLoss.bce: lambda x: bce_loss(
        x.logits_expert_is_high, x.mask, x.is_expert, x.label_smoothing, x.class_balance
    ),
    ClassifierLoss.wgan: lambda x: wgan_loss(x.logits_expert_is_high, x.mask, x.is_expert, x.score_penalty),
    ClassifierLoss.pairwise: lambda x: pairwise_loss(x.logits_expert_is_high, x.mask, x.is_expert, x.group),
}


# The gradient of a sequence's logits depends on no other's, so one pass over each sequence is enough.
SUMS_OVER_SEQUENCES = (ClassifierLoss.bce, ClassifierLoss.wgan)


@dataclass(frozen=True)
class PolicyLossTerms:
    """Per-token values, all (B, T)."""

    loss: Tensor
    kl: Tensor | None
    is_clipped: Tensor


def token_policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    clip_epsilon: float,
    ref_logps: Tensor | None = None,
    beta: float = 0.0,
    sampling_ratio: Tensor | None = None,
) -> PolicyLossTerms:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7) at every token, with an optional KL term.

    All inputs are (B, T); the KL to the reference is the k3 estimator exp(q - p) - (q - p) - 1 (Schulman 2020).
    `sampling_ratio` weighs the surrogate of tokens that were sampled from a slightly different policy, as vLLM's is.
    """
    ratio = torch.exp(logps - old_logps)
    clipped = ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    if sampling_ratio is not None:
        loss = loss * sampling_ratio
    is_clipped = ((ratio < 1 - clip_epsilon) & (advantages < 0)) | ((ratio > 1 + clip_epsilon) & (advantages > 0))
    if ref_logps is None:
        return PolicyLossTerms(loss, None, is_clipped)
    kl = torch.exp(ref_logps - logps) - (ref_logps - logps) - 1
    return PolicyLossTerms(loss + beta * kl, kl, is_clipped)
