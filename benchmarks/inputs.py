"""Random models, sequences with the lengths of GSM8K, and configs, for the comparisons."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from transformers import PreTrainedTokenizerBase, set_seed

from benchmarks.measure import Size
from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.scoring.generation import on_best_device
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model
from reasoning_irl.text.trace import format_trace, reasoning_span

MAX_VALUE = 40  # the largest number of the embedded tokenizer
PLAIN = RewardSpec(schema.RewardHead.plain, schema.Granularity.dense, 1)


def irl_config(*overrides: str) -> schema.IRLTrainConfig:
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose("config_irl_train", overrides=list(overrides)), schema.IRLTrainConfig)


@contextmanager
def saved_model(size: Size, layers: int) -> Iterator[str]:
    """The folder of a random embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        save_embedded(schema.EmbeddedModelConfig(size.hidden, layers, 4, 0.02, 4096), MAX_VALUE, Path(folder))
        yield folder


def reward_model(size: Size, tokenizer: PreTrainedTokenizerBase) -> RewardModel:
    with saved_model(size, size.reward_layers) as folder:
        return on_best_device(build_reward_model(folder, PLAIN, tokenizer).eval())


def sequences(n: int, length: float, tokenizer: PreTrainedTokenizerBase) -> list[TokenSequence]:
    """Random tokens: prompts of 90 to 270 and completions of 60 to 600, 250 on average, all times `length`."""
    rng = random.Random(0)

    def ids(n_tokens: float) -> tuple[int, ...]:
        return tuple(rng.randrange(5, len(tokenizer)) for _ in range(round(n_tokens * length)))

    return [TokenSequence(ids(rng.randint(90, 270)), ids(min(600, max(60, rng.gauss(250, 100))))) for _ in range(n)]


def long_records(records: Sequence[Record], length: float) -> list[Record]:
    """Each as long as a problem of GSM8K (times `length`): the questions and steps of several records in a row."""
    made = []
    for start in range(len(records)):
        joined = [records[(start + n) % len(records)] for n in range(max(1, round((4 + start % 4) * length)))]
        steps = [r.target[slice(*reasoning_span(r.target))].strip() for r in joined]
        made.append(
            replace(
                records[start],
                prompt=make_prompt(" ".join(r.question for r in joined), ""),
                target=format_trace("\n".join(steps), joined[-1].answer),
            )
        )
    return made
