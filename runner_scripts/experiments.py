"""The published experiments, and the sizes of their models."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS


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


@functools.cache
def training_config(name: str) -> schema.PolicyTrainConfig:
    """A training config by folder and name."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose(name), schema.IRLTrainConfig, schema.SFTTrainConfig, schema.GRPOTrainConfig)


@functools.cache
def evaluation_config(name: str) -> schema.EvalConfig:
    """A config of evaluate.py by folder and name."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose(name), schema.EvalConfig)
