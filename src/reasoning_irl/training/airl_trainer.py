"""Adversarial IRL as a small subclass of TRL's GRPOTrainer (arXiv 2510.01857).

Each step: the policy samples a group of traces per prompt, the discriminator is updated and scores every token, the
scores become (B, T) advantages, and the policy takes a clipped policy-gradient step.

Departures from GRPOTrainer: the advantages are per token and come from the discriminator; the loss is our own
`token_policy_loss`, because a loss that re-packs rows would misalign them; and policy steps are skipped while the
discriminator's held-out AUROC is at chance (guard.py has the other limits and reactions). The trainer's reward function
is for monitoring only: nothing is trained on what it returns.

With several processes, each samples for prompts of its own; the samples of all are gathered for the discriminator, so
that its updates, what they draw at random, the replay and the guard are the same in every process.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME
from trl import GRPOConfig
from trl.extras.profiling import profiling_decorator
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from reasoning_irl.config.schema import GuardConfig, Reaction, RewardForm, RewardModelConfig
from reasoning_irl.data.alignment import TokenBridge
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate, encode_completion
from reasoning_irl.metrics.traces import auroc, pearson
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.models.reward_model import load_trained
from reasoning_irl.rewards.verifiable import answer_reward
from reasoning_irl.text.token_spans import decode
from reasoning_irl.text.trace import is_well_formed
from reasoning_irl.training.advantages import advantages_with_expert, token_advantages
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, label_batch, update_or_keep
from reasoning_irl.training.experts import ExpertPool, ReplayBuffer
from reasoning_irl.training.guard import MOST_ROLLBACKS, CollapseGuard
from reasoning_irl.training.losses import token_policy_loss
from reasoning_irl.training.policy_trainer import PolicyTrainer
from reasoning_irl.training.reward_checkpoint import load_training_state, save_reward_checkpoint
from reasoning_irl.utils import processes
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.reading import read_json
from reasoning_irl.utils.run_folder import REWARD_MODEL, step_of, whole_checkpoints

GUARD_FILE = "guard.json"  # in a checkpoint: the guard's state


class _Guarded(TrainerCallback):
    """Does at the steps of the library's loop what the guard has decided."""

    def __init__(self, trainer: "AIRLTrainer") -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Drops the gradients of a skipped step, so that the optimiser leaves the parameters unchanged."""
        self._trainer.watch_entropy()
        if self._trainer.skip_policy_step:
            self._trainer.model.zero_grad(set_to_none=True)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 (the library's signature)
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **_: Any,
    ) -> None:
        if self._trainer.stop_reason:
            control.should_save = control.should_training_stop = True


class AIRLTrainer(PolicyTrainer):
    """GRPOTrainer whose advantages come from a discriminator that is trained alongside the policy."""

    _tag_names = ["airl", "reasoning_irl"]  # noqa: RUF012 (the library's own attribute)

    def __init__(
        self,
        *,
        args: GRPOConfig,
        discriminator: Discriminator,
        experts: ExpertPool,
        bridge: TokenBridge,
        reward_tokenizer: PreTrainedTokenizerBase,
        heldout: list[Record],
        config: RewardModelConfig,
        guard: GuardConfig,
        **kwargs: Any,
    ) -> None:
        super().__init__(args=args, reward_funcs=[answer_reward], **kwargs)
        # Unsloth generates a trainer of its own, whose loss must not take the place of ours; see docs/unsloth.md.
        assert not {"compute_loss", "_compute_loss"} & vars(self).keys()
        assert self.compute_loss_func  # the library then leaves the scale of the loss to us
        discriminator.check_equal()
        self.discriminator = discriminator
        self.experts = experts
        self.bridge = bridge
        self.reward_tokenizer = reward_tokenizer
        self.heldout = heldout
        self.config = config
        self.replay = ReplayBuffer(config.replay_buffer_size, args.seed)
        self.guard = CollapseGuard(guard)
        self.skip_policy_step = False
        self.stop_reason: str | None = None  # why the guard ended the run
        self._entropies: list[float] = []  # of this step's passes
        self.add_callback(_Guarded(self))

    # ---- the alternation

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        is_training = self.model.training  # read first, because sampling may change the mode
        out = super()._generate_and_score_completions(inputs)
        if not is_training:
            return out
        rollouts = TokenBatch(out["prompt_ids"], out["prompt_mask"], out["completion_ids"], out["completion_mask"])
        samples = processes.union(self._for_reward(rollouts.sequences()))
        self._monitor_heldout(samples)
        self._monitor_format(rollouts)
        reactions = self._react()
        if not {Reaction.throttle, Reaction.roll_back, Reaction.stop} & reactions.keys():
            self._update_discriminator(samples, self._own_experts(inputs))
        with_expert = self.config.add_expert_to_policy_optim
        tokens = self._with_experts(rollouts, inputs) if with_expert else rollouts
        logps = self._logps(tokens) if self._needs_logps(out) else None
        rewards = self._finite(self._rewards(tokens, logps if self._is_airl_form else None), tokens)
        # Only what the loss reads: a backend adds entries of its own, which lack the experts' rows.
        batch = {
            "prompt_ids": tokens.prompt_ids,
            "prompt_mask": tokens.prompt_mask,
            "completion_ids": tokens.completion_ids,
            "completion_mask": tokens.completion_mask,
            "num_items_in_batch": self.accelerator.gather(tokens.completion_mask.sum()).sum(),
            "advantages": (advantages_with_expert if with_expert else token_advantages)(
                rewards,
                tokens.completion_mask,
                self.num_generations + with_expert,
                self.config.advantage_calculation,
                self.config.advantage_baseline,
                self.config.dense_gamma,
                self.config.advantage_std_floor if self.config.normalize_advantages else None,
            ),
        }
        if "old_per_token_logps" in out:
            batch["old_per_token_logps"] = logps
        if "ref_per_token_logps" in out:
            batch["ref_per_token_logps"] = self._reference_logps(tokens)
        if "importance_sampling_ratio" in out:
            batch["importance_sampling_ratio"] = rows_with_experts(
                out["importance_sampling_ratio"], tokens.completion_ids.shape, self.num_generations
            )
        self._metrics["train"]["policy/skipped"].append(float(self.skip_policy_step))
        # After a rollback, the samples are of the policy that was given up.
        self._monitor_rewards(rewards, tokens, is_watched=Reaction.roll_back not in reactions)
        step, n = self.state.global_step + 1, self.num_generations
        records = [inputs[row // (n + 1) * n] for row in range(len(tokens))] if with_expert else inputs
        self.completions.write(step, self._tokenizer, tokens, records, rewards, batch["advantages"])
        return batch

    def warm_up_discriminator(self) -> Iterator[dict[str, float]]:
        """Updates on experts and perturbed copies only, before the first policy step; yields each one's metrics."""
        for _ in range(self.config.reward_warmup_steps):
            yield self._update(self._labelled([], []))

    def _own_experts(self, inputs: list[dict[str, Any]]) -> list[Record]:
        """The experts of the prompts of all processes' rollouts."""
        return [self.experts[index] for index in dict.fromkeys(processes.union([row["index"] for row in inputs]))]

    @profiling_decorator
    def _update_discriminator(self, fresh: list[TokenSequence], own: list[Record]) -> None:
        for _ in range(self.config.reward_updates_per_policy_step):
            n_replayed = int(self.config.replay_fraction * self.config.reward_policy_batch_size)
            replayed = self.replay.draw(n_replayed)
            n_fresh = min(len(fresh), self.config.reward_policy_batch_size - len(replayed))
            chosen = _shuffled(len(fresh))[:n_fresh]
            batch = self._labelled([*(fresh[i] for i in chosen), *replayed], own)
            for name, value in self._update(batch).items():
                self._metrics["train"][name].append(value)
        self._metrics["train"]["discriminator/learning_rate"].append(self.discriminator.scheduler.get_last_lr()[0])
        self.replay.add(fresh)

    def _update(self, batch: LabelledBatch) -> dict[str, float]:
        return update_or_keep(self.discriminator, batch, self.state.global_step + 1, self.non_finite)

    def _labelled(self, policy: list[TokenSequence], own: list[Record]) -> LabelledBatch:
        """Experts, their perturbed copies, and the given policy samples, in the reward model's tokens.

        The experts are `own`, those of the samples' own prompts, as far as there is room, and further ones.
        """
        n = self.config.reward_batch_size
        chosen = [own[i] for i in _shuffled(len(own))[:n]]
        records = [*chosen, *self.experts.draw(n - len(chosen))]
        n_copies = self.config.num_neg_perturbations_per_expert
        records, perturbed = self.experts.with_copies(records, n_copies, required=not policy)
        batch = self._label([self.experts.sequence(r) for r in records], policy, perturbed)
        if not self._is_airl_form:
            return batch
        return LabelledBatch(batch.tokens, batch.origin, batch.group, _shared(self._logps, batch.tokens))

    def _label(
        self, expert: list[TokenSequence], policy: list[TokenSequence], perturbed: list[TokenSequence]
    ) -> LabelledBatch:
        # All three take the same path, so that neither truncation nor tokenization gives any of them away.
        expert, perturbed = self._for_reward(expert), self._for_reward(perturbed)
        return label_batch(expert, policy, perturbed, self.reward_tokenizer.pad_token_id, self.accelerator.device)

    # ---- between the policy's tokens and the reward model's, which may be the same tokens

    def _for_reward(self, policy: list[TokenSequence]) -> list[TokenSequence]:
        return policy if self.bridge.is_identity else [self.bridge.to_reward(s).sequence for s in policy]

    @profiling_decorator
    def _rewards(self, tokens: TokenBatch, logps: Tensor | None) -> Tensor:
        """(B, T) rewards at the policy's tokens."""
        if self.bridge.is_identity:
            return self.discriminator.rewards(tokens, logps)
        bridged = [self.bridge.to_reward(sequence) for sequence in tokens.sequences()]
        pad_id = self.reward_tokenizer.pad_token_id
        scored = self.discriminator.rewards(collate([b.sequence for b in bridged], pad_id, self.accelerator.device))
        rewards = torch.zeros(tokens.completion_ids.shape, device=scored.device)
        for row, b in enumerate(bridged):
            carried = b.rewards_of_policy(scored[row, : len(b.sequence.completion_ids)].tolist())
            rewards[row, : len(carried)] = torch.tensor(carried, device=scored.device)
        return rewards

    def _score(self, tokens: TokenBatch) -> Tensor:
        """(B, T) rewards of sequences in the reward model's tokens."""
        return self.discriminator.rewards(tokens, self._logps(tokens) if self._is_airl_form else None)

    def _with_experts(self, rollouts: TokenBatch, inputs: list[dict[str, Any]]) -> TokenBatch:
        """The rollouts with their prompt's expert after each group of samples."""
        sequences, rows = rollouts.sequences(), []
        for start in range(0, len(sequences), self.num_generations):
            ids, _ = encode_completion(self._tokenizer, inputs[start]["target"], self.max_completion_length)
            rows += [*sequences[start : start + self.num_generations]]
            rows.append(TokenSequence(sequences[start].prompt_ids, ids))
        return collate(rows, self._tokenizer.pad_token_id, self.accelerator.device)

    # ---- log-probabilities of the policy

    @property
    def _is_airl_form(self) -> bool:
        return self.config.reward_form == RewardForm.airl

    def _needs_logps(self, out: dict[str, Any]) -> bool:
        return self._is_airl_form or "old_per_token_logps" in out

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Tensor, *rest: Any, **more: Any) -> Any:
        """Leaves out the library's passes for the old and the reference log-probabilities.

        They lack the experts' rows, so this trainer makes its own. Only the correction of vLLM's samples reads them.
        """
        if self.use_vllm:
            return super()._get_per_token_logps_and_entropies(model, input_ids, *rest, **more)
        _attention_mask, n_tokens, *_ = rest
        return torch.zeros(len(input_ids), n_tokens, device=input_ids.device), None, None

    @torch.no_grad()
    def _logps(self, tokens: TokenBatch, model: torch.nn.Module | None = None) -> Tensor:
        """(B, T) log-probabilities of the completion tokens under the policy (or another model)."""
        checkpointing: Any = self.args.gradient_checkpointing_kwargs
        size = self.args.per_device_train_batch_size
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        with disable_gradient_checkpointing(self.model, checkpointing), self.accelerator.autocast():
            return torch.cat([token_logps(model or self.model, part)[0] for part in parts])

    def _reference_logps(self, tokens: TokenBatch) -> Tensor:
        if self.ref_model is not None:
            return self._logps(tokens, self.ref_model)
        policy: Any = self.accelerator.unwrap_model(self.model)
        # TRL keeps a previously trained adapter as `ref`; otherwise the start is the model without its new adapter.
        with use_adapter(policy, "ref" if "ref" in policy.peft_config else None):
            return self._logps(tokens)

    # ---- the policy's loss

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Uses our own loss on every backend: on a GPU, Unsloth's `compute_loss` packs rows to the left."""
        self.remember(inputs)
        return self._compute_loss(model, inputs)

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        if self.skip_policy_step:
            # No pass is made whose gradient would be dropped; the empty sum has a graph for the backward call.
            return next(p for p in model.parameters() if p.requires_grad).flatten()[:0].sum()
        mask = inputs["completion_mask"]
        tokens = TokenBatch(inputs["prompt_ids"], inputs["prompt_mask"], inputs["completion_ids"], mask)
        assert self.model.training or not torch.is_grad_enabled()  # the scale of the loss depends on the mode
        with self.accelerator.autocast():  # Unsloth drops the one that the library puts around the model
            logps, entropies = token_logps(model, tokens)
        assert logps.dtype == torch.float32
        assert entropies is not None  # TRL's head on the policy computes them
        old_logps = inputs.get("old_per_token_logps")
        terms = token_policy_loss(
            logps,
            logps.detach() if old_logps is None else old_logps,
            inputs["advantages"],
            self.epsilon_low,
            inputs.get("ref_per_token_logps"),
            self.beta,
            inputs.get("importance_sampling_ratio"),
        )
        mode = "train" if self.model.training else "eval"
        for name, values in (("entropy", entropies), ("clip_fraction", terms.is_clipped), ("kl", terms.kl)):
            if values is not None:
                self._metrics[mode][f"policy/{name}"].append(_token_mean(values, mask))
        if mode == "train":
            self._entropies.append(self._metrics[mode]["policy/entropy"][-1])
        # The mean over all tokens of the optimiser step, so that accumulation does not change the gradient.
        normalizer = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        if mode == "train":
            normalizer = normalizer * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return (terms.loss * mask).sum() / normalizer

    # ---- monitoring

    def _monitor_heldout(self, negatives: list[TokenSequence]) -> None:
        """AUROC of held-out experts against samples that no update has seen, and against their own perturbed copies."""
        chosen = _shuffled(len(self.heldout))[: self.guard.n_experts]
        records = [self.heldout[i] for i in chosen]
        few = records[: self.config.reward_batch_size]  # copies cost a pass each
        _, perturbed = self.experts.with_copies(few, self.config.num_neg_perturbations_per_expert, required=False)
        batch = self._label([self.experts.sequence(r) for r in records], negatives, perturbed)
        rewards = _shared(self._score, batch.tokens)
        scores = self.discriminator.trace_scores(rewards, batch.tokens).tolist()
        n, m = len(records), len(negatives)
        is_finite = all(map(math.isfinite, scores))
        # A reward that is not finite tells nothing apart.
        against_policy = auroc(scores[: n + m], [True] * n + [False] * m) if is_finite else 0.5
        assert against_policy is not None
        self.guard.update(auroc=against_policy)
        self._metrics["train"]["discriminator/heldout_auroc"].append(against_policy)
        if perturbed and is_finite:
            against_perturbed = auroc(scores[:n] + scores[n + m :], [True] * n + [False] * len(perturbed))
            self._metrics["train"]["discriminator/heldout_auroc_perturbed"].append(against_perturbed)

    def _monitor_format(self, rollouts: TokenBatch) -> None:
        texts = (decode(self._tokenizer, s.completion_ids) for s in rollouts.sequences())
        well_formed = processes.union([is_well_formed(text) for text in texts])
        share = sum(well_formed) / len(well_formed)
        self.guard.update(well_formed=share)
        self._metrics["train"]["policy/well_formed"].append(share)

    def watch_entropy(self) -> None:
        """Hands the mean entropy of a step's passes to the guard."""
        if self._entropies:
            self.guard.update(entropy=sum(self._entropies) / len(self._entropies))
            self._entropies = []

    # ---- the guard's reactions

    def _react(self) -> Mapping[Reaction, str]:
        """Decides on this step, and goes back to an earlier checkpoint if that is the decision."""
        reactions = self.guard.decide()
        self.stop_reason = reactions.get(Reaction.stop)
        if Reaction.roll_back in reactions and not self.stop_reason:
            self._roll_back(reactions[Reaction.roll_back])
        self.skip_policy_step = bool({Reaction.skip, Reaction.roll_back, Reaction.stop} & reactions.keys())
        self._metrics["train"]["discriminator/throttled"].append(float(Reaction.throttle in reactions))
        if Reaction.skip in reactions:
            logger.warning("policy step %d skipped: %s", self.state.global_step + 1, reactions[Reaction.skip])
        return reactions

    def _finite(self, rewards: Tensor, tokens: TokenBatch) -> Tensor:
        """(B, T) the rewards; if some are not finite, the policy step is skipped, and they are 0 in the logs."""
        is_finite = rewards.isfinite()
        n_broken = sum(processes.gather(int((~is_finite).sum())))
        if n_broken == 0:
            self.non_finite.went_well("reward")
            return rewards
        self.skip_policy_step = True
        reason = f"{n_broken} token rewards are not finite, so the policy is not changed"
        batches = [] if is_finite.all() else [{**vars(tokens), "rewards": rewards}]
        self.non_finite.skipped("reward", self.state.global_step + 1, reason, batches)
        return rewards.where(is_finite, 0.0)

    def _roll_back(self, reason: str) -> None:
        """Goes on from the last checkpoint without an alarm; the steps, schedules and random streams go forward."""
        assert self.optimizer is not None
        good = self._good_checkpoint()
        if good is None or self.guard.n_rollbacks == MOST_ROLLBACKS:
            why = (
                "no checkpoint is of a step before it" if good is None else f"it was rolled back {MOST_ROLLBACKS} times"
            )
            self.stop_reason = f"{reason}, and {why}"
            return
        logger.warning("step %d: back to %s: %s", self.state.global_step + 1, good.name, reason)
        self._load_from_checkpoint(str(good))
        load_keeping_rates(self.optimizer, torch.load(good / OPTIMIZER_NAME, weights_only=True, map_location="cpu"))
        load_trained(self.discriminator.model, good / REWARD_MODEL, self.reward_tokenizer)
        state = load_training_state(good)
        load_keeping_rates(self.discriminator.optimizer, state["discriminator"]["optimizer"])
        self.replay.load_state_dict(state["replay"])
        self.guard.roll_back(_guard_state(good))
        self._metrics["train"]["guard/rolled_back_to"].append(float(step_of(good)))

    def _monitor_rewards(self, rewards: Tensor, tokens: TokenBatch, *, is_watched: bool) -> None:
        lengths = torch.tensor(processes.union(tokens.completion_mask.sum(1).tolist()))
        scores = torch.tensor(processes.union(self.discriminator.trace_scores(rewards, tokens).tolist()))
        metrics = {
            "policy/reward_mean": scores.mean().item(),
            "policy/reward_std": scores.std().item(),
            "policy/completion_length": lengths.float().mean().item(),
        }
        correlation = pearson(scores.tolist(), lengths.tolist())
        if is_watched:
            self.guard.update(length_correlation=correlation)
        if correlation is not None:
            metrics["policy/reward_length_correlation"] = correlation
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)

    def _good_checkpoint(self) -> Path | None:
        """The newest checkpoint that the guard, with its present limits, can go back to."""
        assert self.args.output_dir is not None
        found = whole_checkpoints(Path(self.args.output_dir))
        return next((path for path in found if self.guard.is_good(_guard_state(path))), None)

    # ---- checkpoints

    def still_needed(self) -> list[Path]:
        good = self._good_checkpoint()
        return [] if good is None else [good]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.discriminator.check_equal()
        super()._save_checkpoint(model, trial)

    def save_more(self, folder: Path) -> None:
        """Saves the reward model, its optimiser and schedule, the replay buffer, the expert stream and the guard."""
        state = {
            "discriminator": self.discriminator.state_dict(),
            "experts": self.experts.state_dict(),
            "replay": self.replay.state_dict(),
        }
        save_reward_checkpoint(folder, self.discriminator.model, self.reward_tokenizer, state)
        (folder / GUARD_FILE).write_text(json.dumps(self.guard.state_dict(), indent=1) + "\n")

    def load_discriminator_state(self, folder: Path) -> None:
        """Restores the rest of the state from a checkpoint whose reward model is already in the discriminator."""
        state = load_training_state(folder)
        self.discriminator.load_state_dict(state["discriminator"])
        self.experts.load_state_dict(state["experts"])
        self.replay.load_state_dict(state["replay"])
        self.guard.load_state_dict(_guard_state(folder))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Leaves out the metrics of library internals that this trainer replaces, which would mislead."""
        misleading = ("rewards/", "reward", "frac_reward_zero_std")
        accuracy = self._metrics["train"].pop("rewards/answer_reward/mean", None)
        for name in [n for n in self._metrics["train"] if n.startswith(misleading)]:
            del self._metrics["train"][name]
        if accuracy:
            self._metrics["train"]["monitor/accuracy"] = accuracy
        super().log(logs, start_time)


def load_keeping_rates(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads an optimiser's saved state but for its learning rates, which follow their schedule."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _guard_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_json(checkpoint / GUARD_FILE, "start another run with model.checkpoint=FOLDER")
    return state


def _shuffled(n: int) -> list[int]:
    """The numbers below n in a random order, the same in all processes."""
    return processes.from_main(torch.randperm(n).tolist())


def _shared(score: Callable[[TokenBatch], Tensor], tokens: TokenBatch) -> Tensor:
    """(B, T) score(tokens) for tokens that all processes have, of which each scores a share of the rows."""
    rows = torch.arange(processes.rank(), len(tokens), processes.world_size(), device=tokens.completion_ids.device)
    whole = torch.zeros(tokens.completion_ids.shape, device=tokens.completion_ids.device)
    if len(rows):
        whole[rows] = score(tokens[rows])
    processes.add_up([whole])
    return whole


def _token_mean(values: Tensor, mask: Tensor) -> float:
    """The mean over the counted tokens of values (B, T), over the micro-batches of all processes."""
    total = torch.stack([(values * mask).sum().detach(), mask.sum()])
    processes.add_up([total])
    return (total[0] / total[1].clamp(min=1)).item()


def rows_with_experts(ratio: Tensor, shape: torch.Size, n_generations: int) -> Tensor:
    """The weights (N, t) or (N, 1) of N samples at their rows of a batch (B, T); 1 in the experts' rows.

    If the batch has experts, one follows each group of `n_generations` samples.
    """
    whole = torch.ones(shape, device=ratio.device)
    has_experts = len(whole) > len(ratio)
    is_sample = torch.arange(len(whole), device=ratio.device) % (n_generations + has_experts) < n_generations
    values = ratio.expand(-1, whole.size(1)) if ratio.size(1) == 1 else ratio
    whole[is_sample, : values.size(1)] = values
    return whole
