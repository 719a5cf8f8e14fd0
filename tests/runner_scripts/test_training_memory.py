"""The memory of a training step: without storage against real tensors, and what is stored against both."""

import json

import pytest
import torch
from peft import TaskType
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from reasoning_irl.config import schema
from reasoning_irl.utils.sizes import GIB
from runner_scripts import training_memory
from runner_scripts.experiments import SHAPES, Shape, experiments, training_config
from runner_scripts.training_memory import MEASURED, MemoryTracker, settings_of, step_memory

SMALL = Shape(layers=2, hidden=256, inner=688, heads=4, kv_heads=2, head_size=64, vocabulary=8000, is_tied=True)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> schema.IRLTrainConfig:
    """A published config with small models and short sequences."""
    monkeypatch.setitem(SHAPES, "small", SMALL)
    training_config.cache_clear()
    config = training_config("llama3b/3B_1B_config_irl_train")
    training_config.cache_clear()  # the caller changes it
    assert isinstance(config, schema.IRLTrainConfig)
    config.model.policy_name = config.model.reward_name = "small"
    config.model.load_in_4bit = False
    config.model.reward_policy_batch_size = 14
    config.training.max_prompt_length, config.training.max_completion_length = 60, 200
    return config


def allocated_peak(events: list[int]) -> int:
    live, peak = 0, 0
    for change in events:
        live += change
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("checkpointed", [True, False])
def test_memory_without_storage_is_that_of_a_real_step(config: schema.IRLTrainConfig, checkpointed: bool) -> None:
    """Against what PyTorch's allocator reports for the same step of the policy on real tensors."""
    config.training.gradient_checkpointing = checkpointed
    found = step_memory(config)
    model = config.model
    policy = AutoModelForCausalLM.from_config(training_memory.architecture("small", SMALL), dtype=torch.bfloat16)
    policy = training_memory.with_lora(policy, model.policy_lora, TaskType.CAUSAL_LM)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        training_memory._policy_step(policy, config)
    changes = [e.nbytes() for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert found.policy - found.resident == pytest.approx(allocated_peak(changes), rel=0.1)


def test_weights_in_four_bits_are_counted_as_such(config: schema.IRLTrainConfig) -> None:
    whole = step_memory(config).resident
    config.model.load_in_4bit = True
    saved = 2 * SMALL.linear * (2 - 0.516)  # of policy and reward model
    assert whole - step_memory(config).resident == pytest.approx(saved, rel=0.01)


def test_checkpointing_and_micro_batches_limit_the_memory(config: schema.IRLTrainConfig) -> None:
    first = step_memory(config)
    config.training.gradient_checkpointing = False
    plain = step_memory(config)
    config.model.reward_micro_batch_size //= 4
    small = step_memory(config)
    rewards = [of.reward - of.resident for of in (first, plain, small) if of.reward is not None]
    assert first.policy < plain.policy
    assert rewards[0] < 0.75 * rewards[1]
    assert rewards[2] < 0.5 * rewards[1]


def test_freed_tensors_are_not_counted() -> None:
    with MemoryTracker() as tracker:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b.view(10, 100)
        assert (tracker.live, tracker.peak) == (4000, 8000)
        del b, c
    assert tracker.live == 0


def test_stored_measurements_are_of_the_current_configs() -> None:
    stored = json.loads(MEASURED.read_text())
    assert stored.keys() == {name for name, _ in experiments()}
    for name, entry in stored.items():
        assert entry["settings"] == settings_of(training_config(name)), f"run training_memory.py {name}"


def test_stored_measurement_is_that_of_the_current_code() -> None:
    name = "llama3b/3B_1B_config_irl_train"  # the one with a reward model that takes the least time
    stored, found = json.loads(MEASURED.read_text())[name]["GiB"], step_memory(training_config(name))
    assert found.reward is not None
    again = {"resident": found.resident, "policy": found.policy, "reward": found.reward}
    assert {key: value / GIB for key, value in again.items()} == pytest.approx(stored, abs=0.2)
