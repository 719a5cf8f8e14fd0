"""The discriminator: a reward model with its own optimiser, trained to tell experts from policy and perturbed traces.

Departures from arXiv 2510.01857: a negative always has its own prompt; the gradient of an update does not depend on
the micro-batch size; WGAN has a gradient penalty; the logit can have the AIRL form f - log pi (Fu et al. 2018); and
the likelihood head can also be trained to predict the experts' tokens (`reward_lm_coef`), a regulariser that preserves
a reward model's features (Yang et al. 2024, arXiv 2406.10216).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import get_scheduler

from reasoning_irl.config.schema import ClassifierLoss, DiscriminatorConfig, DiscriminatorLogit
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.training.losses import LOSSES, LossInputs, masked_mean
from reasoning_irl.utils.log import logger


class Origin(IntEnum):
    """Where a sequence of an update comes from."""

    expert = 0
    policy = 1
    perturbed = 2


@dataclass(frozen=True)
class LabelledBatch:
    """The sequences of one discriminator update."""

    tokens: TokenBatch
    origin: Tensor  # (B,) of Origin
    group: Tensor  # (B,) equal for equal prompts
    policy_logps: Tensor | None = None  # (B, T), for the AIRL form

    @property
    def is_expert(self) -> Tensor:  # (B,)
        return self.origin == Origin.expert


def label_batch(
    expert: Sequence[TokenSequence],
    policy: Sequence[TokenSequence],
    perturbed: Sequence[TokenSequence],
    pad_id: int,
    device: torch.device | str = "cpu",
) -> LabelledBatch:
    """Joins sequences of the three origins into one batch."""
    sequences = [*expert, *policy, *perturbed]
    numbers: dict[tuple[int, ...], int] = {}
    group = [numbers.setdefault(s.prompt_ids, len(numbers)) for s in sequences]
    origin = [Origin.expert] * len(expert) + [Origin.policy] * len(policy) + [Origin.perturbed] * len(perturbed)
    return LabelledBatch(
        collate(sequences, pad_id, device),
        torch.tensor(origin, device=device),
        torch.tensor(group, device=device),
    )


class Discriminator:
    """Learns to tell experts (label 1) from negatives (label 0), and turns its logit into a reward."""

    def __init__(self, model: RewardModel, config: DiscriminatorConfig, total_updates: int) -> None:
        self.model = model.eval()  # it has no dropout: training and scoring compute the same function
        self.config = config
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.reward_learning_rate, weight_decay=config.reward_weight_decay
        )
        self.scheduler = get_scheduler(
            config.reward_lr_scheduler_type,
            self.optimizer,
            num_warmup_steps=int(config.reward_warmup_ratio * total_updates),
            num_training_steps=total_updates,
        )

    def update(self, batch: LabelledBatch) -> dict[str, float]:
        """Takes one optimiser step; returns loss, gradient norm and accuracies.

        With several micro-batches, the logits of all are first computed without a graph, then the loss and its gradient
        with respect to them; each micro-batch is then run again and that gradient backpropagated through it (gradient
        cache, Gao et al. 2021). This is exact for every loss, including those that compare sequences.
        """
        size = self.config.reward_micro_batch_size
        rows = [slice(start, start + size) for start in range(0, len(batch.tokens), size)]
        if len(rows) == 1:
            outputs = self._outputs(batch, rows[0])
            loss = self._loss(outputs, batch)
            loss.backward()
        else:
            with torch.no_grad():
                parts = [self._outputs(batch, r) for r in rows]
            outputs = [torch.cat(column).requires_grad_() for column in zip(*parts, strict=True)]
            loss = self._loss(outputs, batch)
            gradients = torch.autograd.grad(loss, outputs, allow_unused=True)
            for r in rows:
                pairs = [(o, g[r]) for o, g in zip(self._outputs(batch, r), gradients, strict=True) if g is not None]
                torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
        metrics = {"discriminator/loss": loss.item()}
        if self.config.classifier_loss == ClassifierLoss.wgan:
            metrics["discriminator/gradient_penalty"] = self._backward_gradient_penalty(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.reward_max_grad_norm)
        is_finite = math.isfinite(loss.item()) and math.isfinite(norm.item())
        metrics["discriminator/skipped"] = float(not is_finite)
        if is_finite:
            self.optimizer.step()
            self.scheduler.step()
        else:
            logger.warning("discriminator update skipped: loss %s, gradient norm %s", loss.item(), norm.item())
        self.optimizer.zero_grad(set_to_none=True)
        metrics["discriminator/grad_norm"] = norm.item()
        return metrics | self._accuracies(outputs[0].detach(), batch)

    def logits(self, tokens: TokenBatch, policy_logps: Tensor | None = None) -> Tensor:
        """(B, T) the logits of the loss, by which prefixes are classified; `policy_logps` (B, T) for the AIRL form."""
        return self.model.prefix_logits(self._in_form(self.model(tokens), tokens, policy_logps), tokens)

    def _in_form(self, f: Tensor, tokens: TokenBatch, policy_logps: Tensor | None) -> Tensor:
        """(B, T) f, or f - log pi if `policy_logps` (B, T) are given."""
        return f if policy_logps is None else f - self.model.over_segments(policy_logps.float(), tokens)

    @torch.no_grad()
    def rewards(self, tokens: TokenBatch, policy_logps: Tensor | None = None) -> Tensor:
        """(B, T) rewards for the policy step: f (or f - log pi) divided by the temperature, clipped if configured."""
        size = self.config.reward_micro_batch_size
        parts = []
        for start in range(0, len(tokens), size):
            rows = slice(start, start + size)
            parts.append(self._in_form(self.model(tokens[rows]), tokens[rows], _rows(policy_logps, rows)))
        rewards = torch.cat(parts) / self.config.disc_temperature
        if self.config.clip_reward_model:
            rewards = rewards.clamp(self.config.reward_lb, self.config.reward_ub)
        return self.model.at_every_token(rewards, tokens)

    def trace_scores(self, rewards: Tensor, tokens: TokenBatch) -> Tensor:
        """(B,) mean token reward of each trace or, if additive, their sum: the logit of the whole trace."""
        mean = masked_mean(rewards, tokens.completion_mask)
        is_additive = self.model.spec.logit == DiscriminatorLogit.additive
        return mean * tokens.completion_mask.sum(1) if is_additive else mean

    def state_dict(self) -> dict[str, Any]:
        """The state of optimiser and schedule; the weights are saved separately, as a model folder."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])

    def _outputs(self, batch: LabelledBatch, rows: slice) -> list[Tensor]:
        """The inputs of the loss: the logits (b, T) and, if it is trained, the log-likelihood (b, T)."""
        tokens = batch.tokens[rows]
        f, log_likelihood = self.model.logits_and_likelihood(tokens)
        logits = self.model.prefix_logits(self._in_form(f, tokens, _rows(batch.policy_logps, rows)), tokens)
        return [logits] if log_likelihood is None or not self.config.reward_lm_coef else [logits, log_likelihood]

    def _loss(self, outputs: list[Tensor], batch: LabelledBatch) -> Tensor:
        loss = LOSSES[self.config.classifier_loss](
            LossInputs(
                outputs[0],
                self.model.read_mask(batch.tokens),
                batch.is_expert,
                batch.group,
                self.config.disc_label_smoothing,
                self.config.class_balance,
            )
        )
        if len(outputs) == 1:
            return loss
        expert = batch.is_expert
        nll = -masked_mean(outputs[1][expert], batch.tokens.completion_mask[expert]).mean()
        return loss + self.config.reward_lm_coef * nll

    def _accuracies(self, logits: Tensor, batch: LabelledBatch) -> dict[str, float]:
        """The share of sequences of each origin whose mean logit has the right sign."""
        looks_expert = masked_mean(logits, self.model.read_mask(batch.tokens)) > 0
        right = looks_expert == batch.is_expert
        return {
            f"discriminator/accuracy_{origin.name}": right[batch.origin == origin].float().mean().item()
            for origin in Origin
            if (batch.origin == origin).any()
        }

    def _backward_gradient_penalty(self, batch: LabelledBatch) -> float:
        """Adds the gradient of the penalty lambda * E[(|df/dx| - 1)^2] of Gulrajani et al. (2017, eq. 3).

        Tokens cannot be interpolated, so x is the sequence of input embeddings, mixed position by position between an
        expert and a negative; f is the mean logit over the expert's tokens.
        """
        expert_rows, negative_rows = torch.where(batch.is_expert)[0], torch.where(~batch.is_expert)[0]
        n_pairs = min(len(expert_rows), len(negative_rows))
        expert_rows = expert_rows[torch.randperm(len(expert_rows))[:n_pairs]]
        negative_rows = negative_rows[torch.randperm(len(negative_rows))[:n_pairs]]
        penalty_sum, size = 0.0, self.config.reward_micro_batch_size
        for start in range(0, n_pairs, size):
            expert = _take(batch.tokens, expert_rows[start : start + size])
            negative = _take(batch.tokens, negative_rows[start : start + size])
            share = torch.rand(len(expert), 1, 1, device=expert.completion_ids.device)
            mixed = (share * self.model.embed(expert) + (1 - share) * self.model.embed(negative)).detach()
            mixed.requires_grad_()
            # Fused attention kernels have no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                f = self.model.forward_embeddings(mixed, expert, negative.completion_ids, share[..., 0])
                logits = self.model.prefix_logits(f, expert)
                score = masked_mean(logits, self.model.read_mask(expert))
                (slope,) = torch.autograd.grad(score.sum(), mixed, create_graph=True)
                norm = slope.flatten(1).norm(dim=1)  # (b,)
                penalty = self.config.gradient_penalty * ((norm - 1) ** 2).sum() / n_pairs
                penalty.backward()
            penalty_sum += penalty.item()
        return penalty_sum


def _rows(values: Tensor | None, rows: slice) -> Tensor | None:
    return None if values is None else values[rows]


def _take(batch: TokenBatch, rows: Tensor) -> TokenBatch:
    return TokenBatch(
        batch.prompt_ids[rows], batch.prompt_mask[rows], batch.completion_ids[rows], batch.completion_mask[rows]
    )
