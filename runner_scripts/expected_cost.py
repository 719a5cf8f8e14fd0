"""Estimates the time and memory of each experiment on one 80 GB A100 from its config; nothing ran on a GPU.

    python runner_scripts/expected_cost.py             # the table of docs/experiments.md

Time: a pass over tokens costs its FLOPs at a fixed share of the GPU's peak; a generated token costs reading all weights
once plus the kernel launches of every layer. Memory: the largest of generation, which is computed, and of the policy's
and the discriminator's backward passes, which training_memory.py measured without storage.
"""

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, only runner_scripts/ is on the path
from reasoning_irl.config import schema
from reasoning_irl.utils.sizes import FOUR_BIT, GIB
from runner_scripts.experiments import SHAPES, Shape, evaluation_config, experiments, training_config

MEASURED = Path(__file__).with_name("training_memory.json")
FLOPS = 0.4 * 312e12  # the share of an A100's bfloat16 peak that training reaches
BANDWIDTH = 0.75 * 2.0e12  # bytes/s, of an 80 GB A100
LAUNCH = 0.8e-3  # s per layer and generated token, without vLLM or CUDA graphs
DEQUANTISED = FOUR_BIT + 2 * 2  # bytes moved per weight: read in 4 bits, written and read in bfloat16
OVERHEAD = 2 * GIB  # CUDA context and fragmentation
PROMPT, COMPLETION, LONGEST = 180, 250, 600  # tokens: means on GSM8K, and the longest completion in a batch
N_TEST = 1319  # test problems in GSM8K
MEDREASON_TEST = 500


@dataclass(frozen=True)
class Cost:
    """Hours and bytes of a run's training and of its evaluation."""

    training: float
    evaluation: float
    memory: float
    evaluation_memory: float


def passes(shape: Shape, tokens: float, times: int) -> float:
    """Seconds for the work of `times` forward passes; a checkpointed LoRA step is three (forward, again, gradients)."""
    return 2 * times * shape.parameters * tokens / FLOPS


def generation(shape: Shape, tokens: int, in_4bit: bool) -> float:
    """Seconds to sample `tokens` tokens one after the other, for a whole batch."""
    read = shape.linear * (DEQUANTISED if in_4bit else 2) + 2 * shape.vocabulary * shape.hidden
    return tokens * (read / BANDWIDTH + LAUNCH * shape.layers)


def training_seconds(config: schema.PolicyTrainConfig) -> float:
    model, training = config.model, config.training
    policy = SHAPES[model.policy_name]
    rows, mean, experts = rows_per_step(training), PROMPT + COMPLETION, 0
    step = 0.0
    if not isinstance(config, schema.SFTTrainConfig):
        step += generation(policy, min(LONGEST, training.max_completion_length), model.load_in_4bit)
    if isinstance(config, schema.IRLTrainConfig):
        reward_model = config.model
        assert reward_model.reward_name is not None
        reward = SHAPES[reward_model.reward_name]
        if reward_model.add_expert_to_policy_optim:
            experts = rows // config.training.num_generations
        per_update = reward_model.reward_policy_batch_size + reward_model.reward_batch_size * (
            1 + reward_model.num_neg_perturbations_per_expert
        )
        monitored = rows + config.guard.n_experts
        monitored += reward_model.reward_batch_size * reward_model.num_neg_perturbations_per_expert
        step += passes(reward, (rows + experts + monitored) * mean, 1)
        step += reward_model.reward_updates_per_policy_step * passes(reward, per_update * mean, 3)
    step += passes(policy, (rows + experts) * mean, 3)
    return step * training.max_steps


def rows_per_step(training: schema.TrainingConfig) -> int:
    return training.per_device_train_batch_size * training.gradient_accumulation_steps


def training_memory(name: str) -> float:
    """Bytes of the largest phase: the backward passes as measured, or the key-value cache while sampling."""
    config, measured = training_config(name), json.loads(MEASURED.read_text())[name]["GiB"]
    phases = [measured["policy"] * GIB, measured.get("reward", 0) * GIB]
    if not isinstance(config, schema.SFTTrainConfig):
        tokens = rows_per_step(config.training) * (
            config.training.max_prompt_length + config.training.max_completion_length
        )
        phases.append(measured["resident"] * GIB + SHAPES[config.model.policy_name].cache(tokens))
    return OVERHEAD + max(phases)


def evaluation_cost(config: schema.EvalConfig, policy: Shape, n_test: int) -> tuple[float, float]:
    """(seconds, bytes) of evaluate.py."""
    sampling = config.sampling
    n = (config.eval.n_problems or n_test) + config.eval.n_validation
    rounds = n * sampling.n_samples / sampling.batch_size
    seconds = rounds * generation(policy, min(LONGEST, sampling.max_completion_length), sampling.load_in_4bit)
    seconds += passes(policy, n * sampling.n_samples * (PROMPT + COMPLETION), 1)
    longest = sampling.max_prompt_length + sampling.max_completion_length
    weights = (FOUR_BIT if sampling.load_in_4bit else 2) * policy.linear + 2 * policy.embeddings
    return seconds, weights + OVERHEAD + policy.cache(sampling.batch_size * longest)


@functools.cache
def cost(training_name: str, evaluation_name: str) -> Cost:
    """The cost of a training config, given by folder and name, and of evaluating its run."""
    trained = training_config(training_name)
    is_medical = trained.dataset.name == schema.DatasetName.medreason
    n_test = MEDREASON_TEST if is_medical else N_TEST
    seconds, memory = evaluation_cost(evaluation_config(evaluation_name), SHAPES[trained.model.policy_name], n_test)
    return Cost(training_seconds(trained) / 3600, seconds / 3600, training_memory(training_name), memory)


def script_of(name: str) -> str:
    if "_irl_train" in name:
        return "irl_train.py"
    return "train.py" if "/grpo_" in name else "sft_train.py"


def table() -> str:
    """The markdown table of all experiments."""
    lines = [
        "| experiment | command | training, h | memory, GiB | evaluation, h | memory, GiB |",
        "|---|---|---|---|---|---|",
    ]
    for training, evaluation in experiments():
        folder, name = training.split("/")
        taken = cost(training, evaluation)
        command = f"`{script_of(training)} --config-path=configs/{folder} --config-name={name}`"
        numbers = [f"{taken.training:.1f}", f"{taken.memory / GIB:.0f}"]
        numbers += [f"{taken.evaluation:.1f}", f"{taken.evaluation_memory / GIB:.0f}"]
        lines.append(f"| {_title(folder, name)} | {command} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _title(folder: str, name: str) -> str:
    stem = Path(name).name.replace("_config", "").removesuffix("_train").removesuffix("_irl")
    return f"{folder} {stem}" + (" AIRL" if "_irl_" in name else "")


if __name__ == "__main__":
    print(table())
