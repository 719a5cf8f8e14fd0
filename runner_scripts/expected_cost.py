"""Estimates the time and memory of each experiment on one 80 GB A100 from its config; nothing is measured.

    python runner_scripts/expected_cost.py             # the tables of docs/experiments.md

Time: a pass over tokens costs its FLOPs at a fixed share of the GPU's peak; a generated token costs reading all weights
once plus the kernel launches of every layer. Memory: the largest of generation, the policy's backward pass and the
discriminator's, each at the longest prompts and completions that the config allows.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS

GIB = 2**30
FLOPS = 0.4 * 312e12  # the share of an A100's bfloat16 peak that training reaches
BANDWIDTH = 0.75 * 2.0e12  # bytes/s, of an 80 GB A100
LAUNCH = 0.8e-3  # s per layer and generated token, without vLLM or CUDA graphs
FOUR_BIT = 0.516  # bytes per weight in NF4 with double quantisation
DEQUANTISED = FOUR_BIT + 2 * 2  # bytes moved per weight: read in 4 bits, written and read in bfloat16
OVERHEAD = 2 * GIB  # CUDA context and fragmentation
PROMPT, COMPLETION, LONGEST = 180, 250, 600  # tokens: means on GSM8K, and the longest completion in a batch
N_TEST = 1319  # test problems in GSM8K
MEDREASON_TEST = 500


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, from its config.json."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    is_tied: bool  # input and output embeddings are one matrix

    @property
    def projections(self) -> list[tuple[int, int]]:
        """(in, out) of a layer's seven linear maps."""
        query, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = [(self.hidden, query), (self.hidden, kv), (self.hidden, kv), (query, self.hidden)]
        return [*attention, (self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden)]

    @property
    def linear(self) -> int:  # weights of all layers
        return self.layers * sum(a * b for a, b in self.projections)

    @property
    def embeddings(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    @property
    def parameters(self) -> int:  # without norms and biases, about 0.01 %
        return self.linear + self.embeddings

    def lora(self, rank: int) -> int:
        return self.layers * rank * sum(a + b for a, b in self.projections)

    def kept(self, tokens: int) -> int:
        """Bytes kept by a checkpointed backward pass: every layer's input, and all activations of one layer."""
        return 2 * tokens * (self.layers * self.hidden + 10 * self.hidden + 5 * self.inner)

    def cache(self, tokens: int) -> int:  # bytes of keys and values
        return 2 * 2 * tokens * self.layers * self.kv_heads * self.head_size


SHAPES = {
    "unsloth/Llama-3.2-1B-Instruct": Shape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "unsloth/Llama-3.2-3B-Instruct": Shape(28, 3072, 8192, 24, 8, 128, 128256, True),
    "unsloth/Meta-Llama-3.1-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256, False),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 4864, 14, 2, 64, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 8960, 12, 2, 128, 151936, True),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": Shape(28, 1536, 8960, 12, 2, 128, 151936, True),
    "Qwen/Qwen2.5-3B-Instruct": Shape(36, 2048, 11008, 16, 2, 128, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": Shape(28, 3584, 18944, 28, 4, 128, 152064, False),
}


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


def training_cost(config: schema.TrainConfig) -> tuple[float, float]:
    """(seconds, bytes) of a training run."""
    model, training = config.model, config.training
    policy, rank = SHAPES[model.policy_name], model.policy_lora.rank
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    mean, longest = PROMPT + COMPLETION, training.max_prompt_length + training.max_completion_length
    experts = 0
    resident = FOUR_BIT * policy.linear + 2 * policy.embeddings + 10 * policy.lora(rank) + OVERHEAD
    step = 0.0
    phases: list[float] = []
    if isinstance(config, schema.SFTTrainConfig):
        trained = longest  # logits of every position
    else:
        trained = training.max_completion_length
        step += generation(policy, min(LONGEST, training.max_completion_length), model.load_in_4bit)
        phases.append(policy.cache(rows * longest))
    if isinstance(config, schema.IRLTrainConfig):
        reward_model = config.model
        assert reward_model.reward_name is not None
        reward, micro = SHAPES[reward_model.reward_name], reward_model.reward_micro_batch_size
        # Its embeddings are float32, its other weights 4-bit; the adapter has float32 AdamW states.
        inner = FOUR_BIT * reward.linear + 4 * reward.vocabulary * reward.hidden
        resident += inner + 16 * reward.lora(reward_model.reward_lora.rank)
        if reward_model.add_expert_to_policy_optim:
            experts = rows // training.num_generations
        per_update = reward_model.reward_policy_batch_size + reward_model.reward_batch_size * (
            1 + reward_model.num_neg_perturbations_per_expert
        )
        monitored = rows + config.guard.n_experts
        monitored += reward_model.reward_batch_size * reward_model.num_neg_perturbations_per_expert
        step += passes(reward, (rows + experts + monitored) * mean, 1)
        step += reward_model.reward_updates_per_policy_step * passes(reward, per_update * mean, 3)
        phases.append(reward.kept(micro * longest))
    step += passes(policy, (rows + experts) * mean, 3)
    micro_rows = training.per_device_train_batch_size + experts // training.gradient_accumulation_steps
    logits = 2 * 2 * micro_rows * trained * policy.vocabulary  # bfloat16, and their gradient
    phases.append(policy.kept(micro_rows * longest) + logits)
    return step * training.max_steps, resident + max(phases)


def evaluation_cost(config: schema.EvalConfig, policy: Shape, n_test: int) -> tuple[float, float]:
    """(seconds, bytes) of evaluate.py."""
    sampling = config.sampling
    n = (config.eval.n_problems or n_test) + config.eval.n_validation
    rounds = n * sampling.n_samples / sampling.batch_size
    seconds = rounds * generation(policy, min(LONGEST, sampling.max_completion_length), sampling.load_in_4bit)
    seconds += passes(policy, n * sampling.n_samples * (PROMPT + COMPLETION), 1)
    longest = sampling.max_prompt_length + sampling.max_completion_length
    weights = (FOUR_BIT if sampling.load_in_4bit else 2) * policy.linear + 2 * policy.embeddings
    logits = 2 * sampling.batch_size * longest * policy.vocabulary
    return seconds, weights + OVERHEAD + max(policy.cache(sampling.batch_size * longest), logits)


@functools.cache
def cost(training_name: str, evaluation_name: str) -> Cost:
    """The cost of a training config, given by folder and name, and of evaluating its run."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        trained = to_config(
            compose(training_name), schema.IRLTrainConfig, schema.SFTTrainConfig, schema.GRPOTrainConfig
        )
        evaluated = to_config(compose(evaluation_name), schema.EvalConfig)
    assert isinstance(trained, schema.TrainConfig)
    assert isinstance(evaluated, schema.EvalConfig)
    seconds, memory = training_cost(trained)
    is_medical = trained.dataset.name == schema.DatasetName.medreason
    n_test = MEDREASON_TEST if is_medical else N_TEST
    eval_seconds, eval_memory = evaluation_cost(evaluated, SHAPES[trained.model.policy_name], n_test)
    return Cost(seconds / 3600, eval_seconds / 3600, memory, eval_memory)


def experiments() -> Iterator[tuple[str, str]]:
    """(training config, evaluation config) of every experiment, by folder and name."""
    folders = ("llama3b", "llama8b", "qwen3b", "qwen7b", "qwen7b-discriminator", "medreason")
    for folder in folders:
        for path in sorted((CONFIGS / folder).glob("*_train.yaml"), key=lambda path: _order(path.stem)):
            if (folder, path.stem) == ("llama8b", "3B_1B_config_irl_train"):  # another name for 8B_1B
                continue
            evaluation = path.stem.replace("_irl_train", "_eval").replace("_train", "_eval")
            yield f"{folder}/{path.stem}", f"{folder}/{evaluation}"


def _order(name: str) -> tuple[int, str]:
    return ("_irl_" not in name) + name.startswith("grpo_"), name


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
