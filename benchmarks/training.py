"""Times a discriminator update and an AIRL step, each against what it could cost at least and at most.

    python benchmarks/training.py [--repeats R] [--json FILE]

The models are random and tiny; the lengths are those of GSM8K (prompts of 90 to 270 tokens, completions of 60 to 600
with a mean of 250). The sides of a comparison take turns in one process, so that a busy machine slows both. Prints
medians in seconds, and the ratios:

update     this project's discriminator update
padded     the same update as published: every sequence padded to 300 + 824 tokens, micro-batches in any order
bare       a forward and a backward pass over the same number of tokens, without padding
airl step  the training step of AIRLTrainer, with two updates of a reward model a third of the policy's size
grpo step  that of TRL's GRPOTrainer with the same policy, prompts and number of samples, each of full length
"""

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model
from reasoning_irl.training.discriminator import Discriminator, label_batch

POLICY, REWARD = (384, 8), (256, 6)  # hidden size and layers
LONGEST_PROMPT, LONGEST_COMPLETION = 300, 824
N_EXPERTS, N_SAMPLES, N_COPIES, MICRO_BATCH = 2, 32, 4, 16  # of an update, as published


def interleaved(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each side; the first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(repeats + 1):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if n:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def composed(name: str, *overrides: str) -> schema.IRLTrainConfig | schema.GRPOTrainConfig:
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose(name, overrides=list(overrides)), schema.IRLTrainConfig, schema.GRPOTrainConfig)


def sequences(n: int, vocabulary: int, rng: random.Random) -> list[TokenSequence]:
    """Sequences with the lengths of GSM8K."""

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, vocabulary) for _ in range(length))

    return [
        TokenSequence(ids(rng.randint(90, 270)), ids(min(600, max(60, round(rng.gauss(250, 100)))))) for _ in range(n)
    ]


def time_update(folder: str, repeats: int) -> dict[str, float]:
    """Median seconds of an update, of the published one, and of a bare pass over as many tokens."""
    config = composed("config_irl_train", f"model.reward_micro_batch_size={MICRO_BATCH}", "model.reward_lm_coef=0")
    assert isinstance(config, schema.IRLTrainConfig)
    tokenizer = load_tokenizer(folder)
    spec = RewardSpec(schema.RewardHead.plain, schema.Granularity.dense, 15)
    model: RewardModel = build_reward_model(folder, spec, tokenizer)
    discriminator = Discriminator(model, config.model, 1000)
    rows = sequences(N_EXPERTS + N_SAMPLES + N_COPIES, len(tokenizer), random.Random(0))
    batch = label_batch(
        rows[:N_EXPERTS], rows[N_EXPERTS:-N_COPIES], rows[-N_COPIES:], tokenizer.pad_token_id, model.device
    )
    n_tokens = sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
    full = torch.randint(4, len(tokenizer), (len(rows), LONGEST_PROMPT + LONGEST_COMPLETION))
    mask = torch.zeros_like(full)
    for n, row in enumerate(rows):
        mask[n, LONGEST_PROMPT - len(row.prompt_ids) : LONGEST_PROMPT + len(row.completion_ids)] = 1
    length = 400
    bare_ids = torch.randint(4, len(tokenizer), (round(n_tokens / length), length))

    def read(ids: torch.Tensor, attention: torch.Tensor | None) -> None:
        """One optimiser step on the mean logit of these rows."""
        for start in range(0, len(ids), MICRO_BATCH):
            part = slice(start, start + MICRO_BATCH)
            given = {} if attention is None else {"attention_mask": attention[part]}
            output = model.backbone(input_ids=ids[part], use_cache=False, **given)
            output.logits.float().mean().backward()
        discriminator.optimizer.step()
        discriminator.optimizer.zero_grad(set_to_none=True)

    return interleaved(
        {
            "update": lambda: discriminator.update(batch),
            "padded": lambda: read(full, mask),
            "bare": lambda: read(bare_ids, None),
        },
        repeats,
    )


def time_steps(policy: str, reward: str, folder: Path, repeats: int) -> dict[str, float]:
    """Median seconds of AIRL's and GRPO's steps, from the logs of two runs each."""
    from reasoning_irl.training.jobs import train_airl, train_grpo

    shared = [
        f"model.policy_name={policy}",
        "model.policy_lora.rank=0",
        "training.per_device_train_batch_size=16",
        "training.gradient_accumulation_steps=2",
        "training.num_generations=16",
        "training.max_completion_length=250",
        "training.max_prompt_length=300",
        f"training.max_steps={repeats + 1}",
        f"training.save_steps={repeats + 1}",
        "training.beta=0",
    ]
    more = [
        f"model.reward_name={reward}",
        "model.reward_updates_per_policy_step=2",
        "warm_start.enabled=false",
        "guard.enabled=false",
        "model.reward_warmup_steps=0",
        f"model.reward_micro_batch_size={MICRO_BATCH}",
        "model.reward_head=plain",
        "model.reward_lm_coef=0",
        f"model.reward_batch_size={N_EXPERTS}",
        f"model.reward_policy_batch_size={N_SAMPLES}",
        "model.num_neg_perturbations_per_expert=2",
        "model.replay_buffer_size=0",
    ]
    taken: dict[str, list[float]] = {"grpo step": [], "airl step": []}
    for turn in range(2):
        for name, values in taken.items():
            run = folder / f"{name.split()[0]}{turn}"
            if name == "airl step":
                config = composed("config_irl_train", *shared, *more, f"training.output_dir={run}")
                assert isinstance(config, schema.IRLTrainConfig)
                train_airl(config)
            else:
                config = composed("config_train", *shared, f"training.output_dir={run}")
                assert isinstance(config, schema.GRPOTrainConfig)
                train_grpo(config)
            values += steps_of(run / "train_log.jsonl")
    return {name: statistics.median(values) for name, values in taken.items()}


def steps_of(log: Path) -> Sequence[float]:
    """The seconds of each step after the first, from a run's log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    at = [line["seconds"] for line in lines if "loss" in line]
    return [after - before for before, after in itertools.pairwise(at)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("policy", "reward")]
        for name, (hidden, layers) in zip(names, (POLICY, REWARD), strict=True):
            save_embedded(schema.EmbeddedModelConfig(hidden, layers, 4, 0.02, 2048), 40, Path(name))
        found = time_update(names[1], arguments.repeats) | time_steps(*names, Path(folder), arguments.repeats)
    ratios = {
        "padded / update": found["padded"] / found["update"],
        "bare / update": found["bare"] / found["update"],
        "airl step / grpo step": found["airl step"] / found["grpo step"],
    }
    for name, value in found.items():
        print(f"{name:<22} {value:8.2f} s")
    for name, value in ratios.items():
        print(f"{name:<22} {value:8.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": found, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
