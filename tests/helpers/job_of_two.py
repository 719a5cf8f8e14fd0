"""What tests/test_processes.py runs in one process and in two.

python -m tests.helpers.job_of_two FOLDER RUN, in each of two processes; RUN is a run folder to evaluate.
"""

import faulthandler
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import trl.trainer.grpo_trainer as library
from transformers import set_seed

from reasoning_irl.config.schema import Granularity, GRPOTrainConfig, RewardHead, SFTTrainConfig
from reasoning_irl.data.loading import load_train
from reasoning_irl.data.tokens import TokenSequence, encode_record
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.models.embedded import build_tokenizer, save_embedded
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from reasoning_irl.training import jobs
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, label_batch
from reasoning_irl.utils import processes
from tests.helpers.configs import MAX_VALUE, TINY, compose_config, compose_tiny, eval_config, irl_config

N_STEPS = 5
LOSSES = {
    "bce": ["model.classifier_loss=bce", "model.reward_lm_coef=0.3", "model.class_balance=true"],
    "wgan": [
        "model.classifier_loss=wgan",
        "model.gradient_penalty=10",
        "model.score_penalty=0.5",
        "model.reward_lm_coef=0",
    ],
    "pairwise": ["model.classifier_loss=pairwise", "model.reward_lm_coef=0"],
}
AIRL = [
    "warm_start.enabled=false",
    "training.num_generations=4",
    "training.max_completion_length=24",
    "training.learning_rate=1e-3",
    "model.reward_learning_rate=1e-3",
    "model.reward_warmup_steps=1",
    "model.reward_batch_size=3",
    "model.reward_policy_batch_size=6",
    "model.reward_micro_batch_size=2",
    "model.replay_buffer_size=16",
    "model.replay_fraction=0.5",
    "model.num_neg_perturbations_per_expert=1",
    "guard.enabled=false",
    "wandb.mode=disabled",
]


def train_discriminator(loss: str, folder: Path) -> Discriminator:
    """Five updates of a new reward model on batches of unequal traces, and one on fewer rows than processes."""
    config = compose_tiny([*LOSSES[loss], "model.reward_micro_batch_size=2", "model.reward_learning_rate=1e-3"])
    tokenizer = build_tokenizer(MAX_VALUE)
    set_seed(0)
    if processes.is_main():
        save_embedded(config.model.embedded, MAX_VALUE, folder)
    processes.barrier()
    set_seed(0)
    head = RewardHead.likelihood if loss == "bce" else RewardHead.plain
    model = build_reward_model(str(folder), RewardSpec(head, Granularity.dense, 5), tokenizer)
    discriminator = Discriminator(model, config.model, 100)
    experts = [encode_record(tokenizer, record, record.target, 200) for record in load_train(config.dataset).train]
    set_seed(processes.rank())
    for step in range(N_STEPS):
        discriminator.update(labelled(experts[5 * step :], tokenizer.pad_token_id))
    if loss == "bce":  # the others need a pair
        discriminator.update(label_batch(experts[:1], [], [], tokenizer.pad_token_id))
    return discriminator


def labelled(experts: list[TokenSequence], pad_id: int) -> LabelledBatch:
    """3 experts, 5 samples of the same and of other prompts, 3 perturbed copies of the last: shares of unequal size.

    The last one is in the share of the second process, and which of its copies it meets is drawn.
    """
    samples = [TokenSequence(s.prompt_ids, s.completion_ids[::-1][: 9 + n]) for n, s in enumerate(experts[1:6])]
    prompt, ids = experts[2].prompt_ids, experts[2].completion_ids
    copies = [TokenSequence(prompt, (*ids[n:], *ids[:n])) for n in (1, 2, 3)]
    return label_batch(experts[:3], samples, copies, pad_id)


def use_known_samples() -> None:
    """Replaces sampling by samples that depend on the step, the prompt and the place in its group alone."""

    def known(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        counts: dict[tuple[int, ...], int] = {}
        completions = []
        for ids in map(tuple, prompt_ids):
            counts[ids] = counts.get(ids, 0) + 1
            rng = random.Random(f"{self.state.global_step} {ids} {counts[ids]}")
            length = rng.randrange(5, 20)
            completions.append([*(rng.randrange(5, 40) for _ in range(length)), self.eos_token_ids[0]])
        return completions, None

    library.GRPOTrainer._generate_single_turn = known
    library.shuffle_sequence_dict = lambda batch: batch  # its random numbers depend on the number of rows


def airl(folder: Path, *overrides: str) -> Path:
    rows = 8 // processes.world_size()
    words = [*AIRL, f"training.output_dir={folder}", f"training.per_device_train_batch_size={rows}", *overrides]
    return jobs.train_airl(compose_tiny(words))


def known_airl(folder: Path) -> Path:
    """AIRL on known samples, with two updates of the discriminator per step."""
    before = library.GRPOTrainer._generate_single_turn, library.shuffle_sequence_dict
    use_known_samples()
    try:
        steps = [f"training.max_steps={N_STEPS}", f"training.save_steps={N_STEPS}", "training.beta=0.1"]
        return airl(folder, *steps, "model.reward_updates_per_policy_step=2", "guard.enabled=true")
    finally:
        library.GRPOTrainer._generate_single_turn, library.shuffle_sequence_dict = before


def resumed_airl(folder: Path) -> None:
    """A run of 4 steps, and the same run resumed from its second step."""
    steps = ["training.max_steps=4", "training.save_steps=2", "training.completions_steps=1"]
    straight = airl(folder / "straight", *steps, "model.reward_form=airl")
    resumed = folder / "resumed"
    if processes.is_main():
        shutil.copytree(straight.parent, resumed, ignore=shutil.ignore_patterns("checkpoint-4"))
    processes.barrier()
    airl(resumed, *steps, "model.reward_form=airl", "training.resume=true")


def baseline(folder: Path, kind: type, name: str) -> Path:
    words = ["training.max_steps=2", "training.save_steps=2", "wandb.mode=disabled", "warm_start.enabled=false"]
    words += [f"training.output_dir={folder}", "training.per_device_train_batch_size=4", *TINY]
    if kind is GRPOTrainConfig:
        words += ["training.num_generations=4", "training.max_completion_length=24"]
    config = compose_config(name, kind, *words)
    return jobs.train_sft(config) if isinstance(config, SFTTrainConfig) else jobs.train_grpo(config)


def evaluate(run: Path, out: Path) -> None:
    """evaluate.py in chunks of two problems, and evaluate_irl.py on its samples."""
    words = (f"run_dir={run}", "wandb.mode=disabled")
    run_evaluation(eval_config(*words, f"output_dir={out / 'sampled'}", "sampling.batch_size=4"))
    traces = out / "sampled/traces.jsonl"
    run_irl_evaluation(irl_config(*words, f"output_dir={out / 'scored'}", f"eval.traces={traces}"))


def run_shared(folder: Path, run: Path) -> None:
    """The jobs that end the same in one process and in two."""
    for loss in LOSSES:
        weights = train_discriminator(loss, folder / "embedded").model.state_dict()
        torch.save(weights, folder / f"{loss}-{processes.rank()}.pt")
    known_airl(folder / "known")
    evaluate(run, folder / "evaluation")


def main(folder: Path, run: Path) -> None:
    faulthandler.dump_traceback_later(270, exit=True)  # says where a process waits for the other
    torch.set_num_threads(1)
    processes.start()
    run_shared(folder, run)
    resumed_airl(folder)
    baseline(folder / "sft", SFTTrainConfig, "config_sft_train")
    baseline(folder / "grpo", GRPOTrainConfig, "config_train")
    processes.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
