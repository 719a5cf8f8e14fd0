"""A training step of AIRL against one of TRL's GRPOTrainer, by phase."""

import statistics
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOTrainer

from benchmarks.inputs import irl_config, long_records, reward_model, saved_model
from benchmarks.measure import Figure, Size, Unit, clock
from reasoning_irl.config.schema import IRLTrainConfig
from reasoning_irl.data.alignment import TokenBridge
from reasoning_irl.data.loading import TrainData, load_train
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.loading import load_tokenizer, trainable_policy
from reasoning_irl.rewards.verifiable import answer_reward
from reasoning_irl.training.airl_trainer import AIRLTrainer
from reasoning_irl.training.arguments import grpo_arguments
from reasoning_irl.training.completions import CompletionsLog
from reasoning_irl.training.discriminator import Discriminator
from reasoning_irl.training.jobs import expert_pool

OVERRIDES = [
    "model.policy_lora.rank=0",
    "model.reward_head=plain",
    "model.reward_lm_coef=0",
    "model.reward_updates_per_policy_step=2",
    "model.reward_batch_size=2",
    "model.num_neg_perturbations_per_expert=2",
    "model.reward_micro_batch_size=16",
    "model.replay_buffer_size=0",
    "model.reward_warmup_steps=0",
    "warm_start.enabled=false",
    "guard.enabled=false",  # no policy step is skipped
    "training.gradient_accumulation_steps=2",
    "training.beta=0",
    "training.n_completions=0",
]
# The method of the trainer that each phase is.
PHASES = {
    "_generate": "rollout",
    "_monitor_heldout": "held-out watch",
    "_update_discriminator": "two discriminator updates",
    "_rewards": "scoring",
    "_compute_loss": "policy, forward",
}
GOAL = 1 / 1.35  # an AIRL step takes at most 1.35 times a GRPO step


def figures(size: Size) -> list[Figure]:
    """The policy does not learn, and each step has its own seed: both trainers sample the same completions.

    Otherwise the lengths would differ, and with them the time of a step.
    """
    with saved_model(size, size.policy_layers) as folder:
        config = irl_config(
            *OVERRIDES,
            f"model.policy_name={folder}",
            f"model.reward_policy_batch_size={size.n_samples}",
            f"training.per_device_train_batch_size={size.n_samples // 2}",
            f"training.num_generations={size.n_samples // 2}",
            f"training.max_prompt_length={round(500 * size.length)}",
            f"training.max_completion_length={round(250 * size.length)}",
            f"training.max_steps={size.repeats}",
            f"training.output_dir={folder}/run",
        )
        data = load_train(config.dataset)
        data = TrainData(long_records(data.train, size.length), long_records(data.heldout, size.length))
        airl, grpo = Steps(_airl(config, size, data)), Steps(_grpo(config, data))
        take_turns(airl, grpo)
    assert airl.n_tokens == grpo.n_tokens
    found = []
    for name, steps in (("AIRL", airl), ("GRPO", grpo)):
        found.append(Figure(f"{name} step", steps.median(Steps.WHOLE), Unit.seconds))
        phases = [phase for phase in steps.seconds[0] if phase != Steps.WHOLE]
        found += [Figure(f"{name}: {phase}", steps.median(phase), Unit.seconds) for phase in phases]
        rest = steps.median(Steps.WHOLE) - sum(steps.median(phase) for phase in phases)
        found.append(Figure(f"{name}: the rest", rest, Unit.seconds))
    ratio = grpo.median(Steps.WHOLE) / airl.median(Steps.WHOLE)
    return [*found, Figure("GRPO step / AIRL step", ratio, Unit.ratio, goal=GOAL)]


class Steps(TrainerCallback):
    """The seconds of a trainer's steps by phase; between two of them, another trainer takes one."""

    WHOLE = "whole step"

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer
        self.seconds: list[dict[str, float]] = []  # of each step
        self.n_tokens: list[int] = []  # sampled by each step
        self.turn = Semaphore(0)
        self.other: Steps
        self._start = 0.0
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        for method, phase in PHASES.items():
            if hasattr(trainer, method):
                self._watch(trainer, method, phase)
        self._watch(trainer.accelerator, "backward", "policy, backward")

    def _watch(self, owner: Any, method: str, phase: str) -> None:
        bound: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = bound(*args, **kwargs)
            self.seconds[-1][phase] += clock() - start
            if method == "_generate":
                self.n_tokens.append(sum(map(len, result[1])))
            return result

        setattr(owner, method, timed)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.seconds:  # a step lasts up to the next one
            self._end_step()
            self.other.turn.release()
            self.turn.acquire()
        self.seconds.append(defaultdict(float))
        set_seed(len(self.seconds))
        self._start = clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._end_step()

    def _end_step(self) -> None:
        self.seconds[-1][self.WHOLE] = clock() - self._start

    def train(self) -> None:
        self.turn.acquire()
        try:
            self.trainer.train()
        finally:  # the other waits no more, also if this one failed
            self.other.turn.release(self.trainer.args.max_steps + 1)

    def median(self, phase: str) -> float:
        return statistics.median(step[phase] for step in self.seconds)


def take_turns(one: Steps, two: Steps) -> None:
    """Trains both in threads, of which one is at work at a time."""
    one.other, two.other = two, one
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(steps.train) for steps in (one, two)]
        one.turn.release()
    for future in running:
        future.result()


def _arguments(config: IRLTrainConfig, data: TrainData) -> dict[str, Any]:
    """What both trainers are given."""
    source = config.model.policy_name
    cpu_logprobs.install()
    set_seed(0)
    shortest = {"min_new_tokens": int(0.4 * config.training.max_completion_length)}
    args = grpo_arguments(config, save_strategy="no", disable_tqdm=True, generation_kwargs=shortest)
    args.learning_rate = 0.0
    return {
        "model": trainable_policy(config.model, source, 0, False, 0),
        "args": args,
        "processing_class": load_tokenizer(source),
        "train_dataset": Dataset.from_list([{**r.as_row(), "index": n} for n, r in enumerate(data.train)]),
    }


def _grpo(config: IRLTrainConfig, data: TrainData) -> GRPOTrainer:
    return GRPOTrainer(reward_funcs=[answer_reward], **_arguments(config, data))


def _airl(config: IRLTrainConfig, size: Size, data: TrainData) -> AIRLTrainer:
    arguments = _arguments(config, data)
    tokenizer, records = arguments["processing_class"], [*data.train, *data.heldout]
    return AIRLTrainer(
        discriminator=Discriminator(reward_model(size, tokenizer), config.model, 1000),
        experts=expert_pool(config, tokenizer, data),
        bridge=TokenBridge(tokenizer, tokenizer, records),
        reward_tokenizer=tokenizer,
        heldout=data.heldout,
        config=config.model,
        guard=config.guard,
        completions=CompletionsLog(Path(config.training.output_dir), 1, 0),
        **arguments,
    )
