"""The discriminator: a reward model with its own optimiser, trained to tell experts from policy and perturbed traces.

Departures from arXiv 2510.01857: a negative always has its own prompt; the gradient of an update does not depend on
the micro-batch size; WGAN has a penalty; the logit can have the AIRL form f - log pi (Fu et al. 2018); and
the likelihood head can also be trained to predict the experts' tokens (`reward_lm_coef`), a regulariser that preserves
a reward model's features (Yang et al. 2024, arXiv 2406.10216).

With several processes, all give `update` the same batch. Each runs its share of the micro-batches, and the gradients
are added up, so that the update is that of one process and the reward models of all processes stay equal.
"""

import math
import zlib
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
from reasoning_irl.training.losses import LOSSES, SUMS_OVER_SEQUENCES, LossInputs, masked_mean
from reasoning_irl.training.non_finite import NonFiniteSteps
from reasoning_irl.utils import processes


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

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        logps = {} if self.policy_logps is None else {"policy_logps": self.policy_logps}
        return {**vars(self.tokens), "origin": self.origin, "group": self.group, **logps}


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

        An update whose loss or gradient is not finite changes nothing: `discriminator/skipped` is then 1.

        The gradient is exact whatever the size of the micro-batches. In a loss that is a sum over sequences, those of a
        micro-batch get their gradient with the others held constant. For one that compares sequences, the logits of all
        are first computed without a graph, then the gradient with respect to them, and each micro-batch is run again
        (gradient cache, Gao et al. 2021).
        """
        size, n = self.config.reward_micro_batch_size, len(batch.tokens)
        if self.config.classifier_loss in SUMS_OVER_SEQUENCES:
            outputs = self._backward_in_parts(batch, self._share(batch.tokens))
        elif n <= size and processes.world_size() == 1:  # all in one part, which needs one pass
            outputs = self._backward_in_parts(batch, [torch.arange(n, device=batch.origin.device)])
        else:
            outputs = self._backward_with_cache(batch, self._share(batch.tokens))
        with torch.no_grad():
            loss = self._loss(outputs, batch)
        metrics = {"discriminator/loss": loss.item()}
        if self.config.classifier_loss == ClassifierLoss.wgan and self.config.gradient_penalty > 0:
            metrics["discriminator/gradient_penalty"] = self._backward_gradient_penalty(batch)
        self._add_up_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.reward_max_grad_norm)
        is_finite = math.isfinite(loss.item()) and math.isfinite(norm.item())
        metrics["discriminator/skipped"] = float(not is_finite)
        if is_finite:
            self.optimizer.step()
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        metrics["discriminator/grad_norm"] = norm.item()
        return metrics | self._accuracies(outputs[0], batch)

    def _share(self, tokens: TokenBatch) -> list[Tensor]:
        """The rows of this process's micro-batches; every process has rows of all lengths, so that none waits long."""
        order = tokens.attention_mask.sum(1).argsort(descending=True, stable=True)
        rows = order[processes.rank() :: processes.world_size()]
        return [rows[group] for group in tokens[rows].by_length(self.config.reward_micro_batch_size)]

    def _backward_in_parts(self, batch: LabelledBatch, groups: list[Tensor]) -> list[Tensor]:
        """Adds the gradient of a loss that is a sum over sequences; returns the loss's inputs (B, T), detached."""
        outputs = self._blank_outputs(batch)
        for rows in groups:
            live = self._outputs(batch, rows)
            self._loss([_placed(o, rows, whole) for o, whole in zip(live, outputs, strict=True)], batch).backward()
            outputs = [_placed(o.detach(), rows, whole) for o, whole in zip(live, outputs, strict=True)]
        processes.add_up(outputs)  # each row is zero in all processes but one
        return outputs

    def _backward_with_cache(self, batch: LabelledBatch, groups: list[Tensor]) -> list[Tensor]:
        """Adds the gradient of any loss; returns the loss's inputs (B, T), detached."""
        outputs = self._blank_outputs(batch)
        with torch.no_grad():
            for rows in groups:
                parts = self._outputs(batch, rows)
                outputs = [_placed(o, rows, whole) for o, whole in zip(parts, outputs, strict=True)]
        processes.add_up(outputs)
        outputs = [o.requires_grad_() for o in outputs]
        gradients = torch.autograd.grad(self._loss(outputs, batch), outputs, allow_unused=True)
        for rows in groups:
            pairs = zip(self._outputs(batch, rows), gradients, strict=True)
            used = [(o, g[rows, : o.size(1)]) for o, g in pairs if g is not None]
            torch.autograd.backward([o for o, _ in used], [g for _, g in used])
        return [o.detach() for o in outputs]

    def _add_up_gradients(self) -> None:
        """Replaces the gradients by their sums over all processes; a parameter that none of them used keeps none."""
        if processes.world_size() == 1:
            return
        device = self.parameters[0].device
        n_users = torch.tensor([p.grad is not None for p in self.parameters], dtype=torch.int, device=device)
        processes.add_up([n_users])
        used = [p for p, n in zip(self.parameters, n_users.tolist(), strict=True) if n]
        for parameter in used:
            if parameter.grad is None:  # this process had none of the rows that use it
                parameter.grad = torch.zeros_like(parameter)
        processes.add_up([p.grad for p in used if p.grad is not None])

    def check_equal(self) -> None:
        """Raises RuntimeError if the weights that are trained differ between processes, by a single bit."""
        if processes.world_size() == 1:
            return
        checksum = 0
        for parameter in self.parameters:
            checksum = zlib.crc32(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data, checksum)
        checksums = processes.gather(checksum)
        if len(set(checksums)) > 1:
            raise RuntimeError(f"the reward models of the processes differ: their checksums are {checksums}")

    def logits(self, tokens: TokenBatch, policy_logps: Tensor | None = None) -> Tensor:
        """(B, T) the logits of the loss, by which prefixes are classified; `policy_logps` (B, T) for the AIRL form."""
        return self.model.prefix_logits(self._in_form(self.model(tokens), tokens, policy_logps), tokens)

    def _in_form(self, f: Tensor, tokens: TokenBatch, policy_logps: Tensor | None) -> Tensor:
        """(B, T) f, or f - log pi if `policy_logps` (B, T) are given."""
        return f if policy_logps is None else f - self.model.over_segments(policy_logps.float(), tokens)

    @torch.no_grad()
    def rewards(self, tokens: TokenBatch, policy_logps: Tensor | None = None) -> Tensor:
        """(B, T) rewards for the policy step: f (or f - log pi) divided by the temperature, clipped if configured."""
        f = _blank(tokens)
        for rows in tokens.by_length(self.config.reward_micro_batch_size):
            part = tokens.take(rows)
            f = _placed(self._in_form(self.model(part), part, _rows(policy_logps, rows, part)), rows, f)
        rewards = f / self.config.disc_temperature
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

    def _outputs(self, batch: LabelledBatch, rows: Tensor) -> list[Tensor]:
        """The inputs of the loss for these rows: the logits (b, t) and, if it is trained, the log-likelihood (b, t).

        t is the length of their longest completion.
        """
        tokens = batch.tokens.take(rows)
        f, log_likelihood = self.model.logits_and_likelihood(tokens)
        logits = self.model.prefix_logits(self._in_form(f, tokens, _rows(batch.policy_logps, rows, tokens)), tokens)
        return [logits] if log_likelihood is None or not self._trains_likelihood else [logits, log_likelihood]

    @property
    def _trains_likelihood(self) -> bool:
        return self.model.likelihood is not None and self.config.reward_lm_coef > 0

    def _blank_outputs(self, batch: LabelledBatch) -> list[Tensor]:
        """Zeros (B, T) for each input of the loss."""
        return [_blank(batch.tokens) for _ in range(1 + self._trains_likelihood)]

    def _loss(self, outputs: list[Tensor], batch: LabelledBatch) -> Tensor:
        loss = LOSSES[self.config.classifier_loss](
            LossInputs(
                outputs[0],
                self.model.read_mask(batch.tokens),
                batch.is_expert,
                batch.group,
                self.config.disc_label_smoothing,
                self.config.class_balance,
                self.config.score_penalty,
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

    def _pairs_of_one_prompt(self, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """(E,) the rows of all experts, and of a random negative of the same prompt; without one, the expert itself.

        So every expert counts, at its own trace if there is nothing to mix it with.
        """
        expert_rows = torch.where(batch.is_expert)[0]
        drawn = processes.from_main(torch.rand(len(expert_rows), len(batch.tokens))).to(batch.origin.device)
        is_own = (batch.group[expert_rows, None] == batch.group) & ~batch.is_expert  # (E, B)
        chosen = torch.where(is_own, drawn, -1.0).argmax(1)
        return expert_rows, torch.where(is_own.any(1), chosen, expert_rows)

    def _backward_gradient_penalty(self, batch: LabelledBatch) -> float:
        """Adds the gradient of the penalty lambda * E[(|df/dx| - 1)^2] of Gulrajani et al. (2017, eq. 3).

        Tokens cannot be interpolated, so x is the completion's input embeddings, mixed position by position between an
        expert and a negative of its own prompt; f is the mean logit over the expert's tokens. A mix of two questions is
        no question, and the slope there says nothing of those that are asked.
        """
        expert_rows, negative_rows = self._pairs_of_one_prompt(batch)
        n_pairs = len(expert_rows)
        n, size = processes.world_size(), self.config.reward_micro_batch_size
        size = size if n == 1 else min(size, math.ceil(n_pairs / n))
        shares = processes.from_main(torch.rand(n_pairs, 1, 1)).to(batch.origin.device)
        penalty_sum = 0.0
        for start in range(0, n_pairs, size)[processes.rank() :: n]:
            share = shares[start : start + size]
            expert = batch.tokens[expert_rows[start : start + size]]
            negative = batch.tokens[negative_rows[start : start + size]]
            mixed = (share * self.model.embed(expert) + (1 - share) * self.model.embed(negative)).detach()
            mixed.requires_grad_()
            # Fused attention kernels have no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                f = self.model.forward_embeddings(mixed, expert, negative.completion_ids, share[..., 0])
                logits = self.model.prefix_logits(f, expert)
                score = masked_mean(logits, self.model.read_mask(expert))
                (slope,) = torch.autograd.grad(score.sum(), mixed, create_graph=True)
                norm = slope[:, -expert.completion_ids.size(1) :].flatten(1).norm(dim=1)  # (b,)
                penalty = self.config.gradient_penalty * ((norm - 1) ** 2).sum() / n_pairs
                penalty.backward()
            penalty_sum += penalty.item()
        return sum(processes.gather(penalty_sum))


def update_or_keep(
    discriminator: Discriminator, batch: LabelledBatch, step: int, non_finite: NonFiniteSteps
) -> dict[str, float]:
    """An update, and its metrics; the batch of one that was skipped is kept. Raises UserError after too many."""
    metrics = discriminator.update(batch)
    if metrics["discriminator/skipped"]:
        loss, norm = metrics["discriminator/loss"], metrics["discriminator/grad_norm"]
        reason = f"the discriminator's loss is {loss} and its gradient {norm}, so it is not changed"
        # All processes have the same batch.
        non_finite.skipped("discriminator", step, reason, [batch.tensors()] if processes.is_main() else [])
    else:
        non_finite.went_well("discriminator")
    return metrics


def _rows(values: Tensor | None, rows: Tensor, tokens: TokenBatch) -> Tensor | None:
    """(b, t) the values (B, T) of these rows, which `tokens` are."""
    return None if values is None else values[rows, : tokens.completion_ids.size(1)]


def _blank(tokens: TokenBatch) -> Tensor:  # (B, T)
    return torch.zeros(tokens.completion_ids.shape, device=tokens.completion_ids.device)


def _placed(values: Tensor, rows: Tensor, whole: Tensor) -> Tensor:
    """(B, T) a copy of `whole` with the values (b, t) at these rows."""
    return whole.index_put((rows[:, None], torch.arange(values.size(1), device=whole.device)), values)
