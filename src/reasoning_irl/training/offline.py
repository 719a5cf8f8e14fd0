"""Learns a reward from demonstrations and a fixed set of samples: AIRL's discriminator without a policy.

Each update takes experts, samples of the same problems as far as there are any, and perturbed copies of the experts.
Held-out experts are compared with the samples of their own problems, none of which is learnt from.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import OfflineTrainingConfig
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.metrics.traces import auroc
from reasoning_irl.training.callbacks import StopOnSignal, append_step, seconds_before
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, Origin, label_batch, update_or_keep
from reasoning_irl.training.experts import ExpertPool, SamplePool
from reasoning_irl.training.non_finite import NonFiniteSteps
from reasoning_irl.training.retention import Retention, writing
from reasoning_irl.training.reward_checkpoint import load_training_state, save_reward_checkpoint
from reasoning_irl.training.step_table import OFFLINE, StepTable
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.run_folder import PART, TRAIN_LOG

N_HELDOUT_SAMPLES = 4  # per problem, so that looking at the held-out part stays cheap


@dataclass(frozen=True)
class SampleSplit:
    """Samples to learn from, and those of the held-out problems."""

    train: list[TokenSequence]
    heldout: list[TokenSequence]


def split_samples(samples: Sequence[TokenSequence], heldout_prompts: set[tuple[int, ...]], seed: int) -> SampleSplit:
    """Holds out the samples of the held-out experts' problems or, if there are none, those of other problems.

    In the second case as many problems are held out as there are held-out experts, at most a tenth of all. Raises
    DataError if none is left to learn from.
    """
    prompts = {sample.prompt_ids for sample in samples}
    held = prompts & heldout_prompts
    if not held:
        n = min(len(heldout_prompts), len(prompts) // 10)
        order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
        distinct = list(dict.fromkeys(sample.prompt_ids for sample in samples))
        held = {distinct[index] for index in order[:n]}
    of_prompt: dict[tuple[int, ...], list[TokenSequence]] = {}
    for sample in samples:
        of_prompt.setdefault(sample.prompt_ids, []).append(sample)
    train = [sample for sample in samples if sample.prompt_ids not in held]
    if not train:
        raise DataError("every sample is of a held-out problem, so none is left to learn from: lower dataset.n_heldout")
    return SampleSplit(
        train, [s for prompt in of_prompt if prompt in held for s in of_prompt[prompt][:N_HELDOUT_SAMPLES]]
    )


class OfflineTrainer:
    """Updates a discriminator until `max_steps`, and saves checkpoints from which the same updates go on."""

    def __init__(
        self,
        *,
        discriminator: Discriminator,
        experts: ExpertPool,
        samples: SamplePool,
        heldout: Sequence[Record],
        heldout_samples: Sequence[TokenSequence],
        tokenizer: PreTrainedTokenizerBase,
        config: OfflineTrainingConfig,
        stop: StopOnSignal,
        run: Any = None,
    ) -> None:
        self.discriminator = discriminator
        self.experts = experts
        self.samples = samples
        self.tokenizer = tokenizer
        self.config = config
        self.stop = stop
        self.run = run  # of W&B, if it is on
        self.step = 0
        # Made before a checkpoint restores the streams: a resumed run looks at the same held-out part.
        self._heldout = self._heldout_batch(heldout, heldout_samples)

    def train(self) -> Path:
        """Trains to the end and returns the last checkpoint's folder."""
        folder = Path(self.config.output_dir)
        end = time.perf_counter() + (self.config.max_seconds or float("inf"))
        start = time.perf_counter() - seconds_before(folder / TRAIN_LOG)
        non_finite = NonFiniteSteps(folder)
        table = StepTable(OFFLINE, self.config.max_steps, self.step, self.config.max_seconds)
        if self.step == 0:
            self._log(self.measure(), start, table)
        sums: dict[str, list[float]] = {}
        while self.step < self.config.max_steps:
            metrics = update_or_keep(self.discriminator, self._batch(), self.step + 1, non_finite)
            for name, value in metrics.items():
                sums.setdefault(name, []).append(value)
            self.step += 1
            is_over = time.perf_counter() >= end or self.stop.is_asked
            is_last = self.step == self.config.max_steps or is_over
            logs: dict[str, float] = {}
            if self.step % self.config.logging_steps == 0 or is_last:
                logs = {name: sum(values) / len(values) for name, values in sums.items()}
                sums = {}
            if self.step % self.config.eval_steps == 0 or is_last:
                logs |= self.measure()
            if logs:
                self._log(logs, start, table)
            if self.step % self.config.save_steps == 0 or is_last:
                self.save(folder / f"checkpoint-{self.step}")
            if is_last:
                break
        table.close()
        return folder / f"checkpoint-{self.step}"

    def measure(self) -> dict[str, float]:
        """How well held-out experts are told from samples and from their perturbed copies, by the traces' scores.

        `heldout_pairs` is the share of pairs of an expert and a sample of the same problem in which the expert's
        reward is higher; a sample that is the expert's own trace counts half.
        """
        batch = self._heldout
        scores = self.discriminator.trace_scores(self.discriminator.rewards(batch.tokens), batch.tokens)
        metrics = {}
        for name, origin in (("heldout_auroc", Origin.policy), ("heldout_auroc_perturbed", Origin.perturbed)):
            of_both = batch.is_expert | (batch.origin == origin)
            value = auroc(scores[of_both].tolist(), batch.is_expert[of_both].tolist())
            if value is not None:
                metrics[f"discriminator/{name}"] = value
        pairs = _same_prompt_pairs(scores, batch)
        if len(pairs):
            metrics["discriminator/heldout_pairs"] = pairs.mean().item()
        return metrics

    def save(self, folder: Path) -> None:
        """Saves the reward model and all that training goes on from; the folder appears when it is whole."""
        part = folder.parent / PART / folder.name
        state = {
            "step": self.step,
            "discriminator": self.discriminator.state_dict(),
            "experts": self.experts.state_dict(),
            "samples": self.samples.state_dict(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),  # empty without a GPU
        }
        with writing(part):
            save_reward_checkpoint(part, self.discriminator.model, self.tokenizer, state)
        Retention.of(self.config).save(part, folder)

    def load_state(self, folder: Path) -> None:
        """Restores the rest of the state from a checkpoint whose reward model is already in the discriminator."""
        state = load_training_state(folder)
        self.step = state["step"]
        self.discriminator.load_state_dict(state["discriminator"])
        self.experts.load_state_dict(state["experts"])
        self.samples.load_state_dict(state["samples"])
        torch.set_rng_state(state["torch"])
        torch.cuda.set_rng_state_all(state["cuda"])

    def _batch(self) -> LabelledBatch:
        config = self.discriminator.config
        records = self.experts.draw(config.reward_batch_size)
        sequences = [self.experts.sequence(record) for record in records]
        samples = self.samples.draw(config.reward_policy_batch_size, [s.prompt_ids for s in sequences])
        _, copies = self.experts.with_copies(records, config.num_neg_perturbations_per_expert, required=False)
        return self._label(sequences, samples, copies)

    def _heldout_batch(self, records: Sequence[Record], samples: Sequence[TokenSequence]) -> LabelledBatch:
        n_copies = min(1, self.discriminator.config.num_neg_perturbations_per_expert)
        _, copies = self.experts.with_copies(list(records), n_copies, required=False)
        return self._label([self.experts.sequence(record) for record in records], list(samples), copies)

    def _label(
        self, experts: list[TokenSequence], samples: list[TokenSequence], copies: list[TokenSequence]
    ) -> LabelledBatch:
        return label_batch(experts, samples, copies, self.tokenizer.pad_token_id, self.discriminator.model.device)

    def _log(self, logs: dict[str, float], start: float, table: StepTable) -> None:
        seconds = time.perf_counter() - start
        append_step(Path(self.config.output_dir) / TRAIN_LOG, self.step, seconds, logs)
        if self.run is not None:
            self.run.log(logs, step=self.step)
        table.add(self.step, logs)


def _same_prompt_pairs(scores: Tensor, batch: LabelledBatch) -> Tensor:
    """(P,) for each pair of an expert and a sample of one prompt: 1 if the expert's score is higher, .5 for a tie."""
    expert, sample = batch.is_expert, batch.origin == Origin.policy
    same = batch.group[expert][:, None] == batch.group[sample][None, :]  # (E, N)
    return (torch.sign(scores[expert][:, None] - scores[sample][None, :])[same] + 1) / 2
