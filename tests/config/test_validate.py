"""Checks of values and of keys that must agree."""

from collections.abc import Callable

import pytest

from reasoning_irl.config import schema
from reasoning_irl.utils.errors import ConfigError
from tests.helpers.configs import compose_any, config_error

TinyConfig = Callable[..., schema.IRLTrainConfig]


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("model.dense_gamma", "1.01", "at least 0 and at most 1"),
        ("model.dense_gamma", "-0.1", "at least 0 and at most 1"),
        ("model.disc_temperature", "0", "above 0"),
        ("model.reward_learning_rate", "0", "above 0"),
        ("model.disc_label_smoothing", "1", "at most 0.999"),
        ("model.reward_batch_size", "0", "at least 1"),
        ("model.reward_updates_per_policy_step", "-1", "at least 0"),
        ("training.num_generations", "1", "at least 2"),
        ("training.max_seconds", "0", "above 0"),
        ("training.learning_rate", "inf", "not a finite number"),
        ("model.dense_gamma", "nan", "not a finite number"),
        ("model.reward_lb", "nan", "not a finite number"),
        ("seed", "4294967296", "at most 4294967295"),
        ("training.top_p", "1.5", "at most 1"),
        ("dataset.max_value", "10", "at least 20"),
        ("dataset.annotator.slip", "2", "at most 1"),
        ("model.embedded.layers", "0", "at least 1"),
        ("seed", "-1", "at least 0"),
    ],
)
def test_value_out_of_range_names_the_key_and_the_range(key: str, value: str, bound: str) -> None:
    message = config_error(f"{key}={value}")
    assert message.startswith(f"{key}={value}")
    assert bound in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.reward_lb=3", "model.reward_ub=2"], ["model.reward_lb", "model.reward_ub"]),
        (["model.reward_form=airl", "model.classifier_loss=wgan"], ["model.reward_form", "model.classifier_loss"]),
        (["model.neg_perturb_fns=[]"], ["model.neg_perturb_fns", "num_neg_perturbations_per_expert"]),
        (["model.num_neg_perturbations_per_expert=0"], ["model.reward_warmup_steps"]),
        (["training.num_generations=7"], ["training.num_generations"]),
        (["training.save_steps=3", "training.num_iterations=2"], ["training.save_steps", "num_iterations"]),
        (["model.embedded.heads=7"], ["model.embedded.heads"]),
        (["dataset.name=jsonl"], ["dataset.path"]),
        (["dataset.name=jsonl", "dataset.path=nowhere.jsonl"], ["nowhere.jsonl"]),
        (["dataset.name=countdown", "dataset.n_train=null"], ["dataset.n_train"]),
        (["model.load_in_4bit=true"], ["model.load_in_4bit", "model.policy_lora.rank"]),
        (["model.load_in_4bit=true", "model.policy_lora.rank=8"], ["model.reward_lora.rank"]),
        (
            [
                "model.load_in_4bit=true",
                "model.policy_lora.rank=8",
                "model.reward_lora.rank=8",
                "model.fast_inference=true",
            ],
            ["model.fast_inference", "model.backend=unsloth"],
        ),
        (["model.vllm_server=http://node:8000"], ["model.vllm_server", "model.fast_inference=true"]),
        (
            ["model.vllm_server=http://node:8000", "model.fast_inference=true", "model.backend=unsloth"],
            ["model.backend=unsloth", "model.vllm_server=null"],
        ),
        (["model.policy_name=./nowhere"], ["model.policy_name"]),
        (["model.checkpoint=outputs/nowhere"], ["model.checkpoint", "outputs/nowhere"]),
        (["dataset.path=some.jsonl"], ["dataset.path"]),
        (["model.checkpoint=./nowhere"], ["model.checkpoint", "./nowhere"]),
        (["model.reward_name=./nowhere"], ["model.reward_name"]),
    ],
)
def test_conflicting_keys_are_named(overrides: list[str], named: list[str]) -> None:
    message = config_error(*overrides)
    assert all(name in message for name in named)
    assert "\n" not in message


def test_invalid_config_is_a_config_error(tiny_config: TinyConfig) -> None:
    with pytest.raises(ConfigError):
        tiny_config(["model.dense_gamma=2"])


@pytest.mark.parametrize(
    ("override", "granularity"),
    [("true", schema.Granularity.dense), ("false", schema.Granularity.sparse), ("null", schema.Granularity.step)],
)
def test_dense_rewards_is_an_alias(override: str, granularity: schema.Granularity, tiny_config: TinyConfig) -> None:
    config = tiny_config(["model.reward_granularity=step", f"model.dense_rewards={override}"])
    assert config.model.reward_granularity == granularity


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward_kind=prm"], r"set model\.step_separator"),
        (["reward_kind=token", "step_separator=x"], r"model\.step_separator is for a PRM"),
        (["step_separator=x", "positive_token=yes"], "set both"),
        (["positive_token=yes", "negative_token=no"], r"set model\.step_separator too"),
        (["reward_path=outputs/nowhere/reward_model"], "does not exist"),
    ],
)
def test_impossible_scorer_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_any("config_irl_eval", *(f"model.{override}" for override in overrides))
