"""GRPO on verifiable rewards: the job end to end on a tiny model."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_irl.config.schema import GRPOTrainConfig
from reasoning_irl.models.loading import load_policy
from reasoning_irl.training import jobs
from tests.helpers.configs import compose_config
from tests.helpers.traces import read_rows


def answer_reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [float(len(messages[-1]["content"]) % 2) for messages in completions]


def format_reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    return [float(len(messages[-1]["content"]) % 3 == 0) for messages in completions]


@pytest.fixture(autouse=True)
def _rewards_that_an_untrained_model_earns(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model has no right answer and no correct format: reward the length of its text instead."""
    monkeypatch.setattr(jobs, "answer_reward", answer_reward)
    monkeypatch.setattr(jobs, "format_reward", format_reward)


def train(run: Path, *overrides: str) -> Path:
    given = ("scale=smoke", f"training.output_dir={run}", *overrides)
    return jobs.train_grpo(compose_config("qwen3b/grpo_3B_config_train", GRPOTrainConfig, *given))


def test_run_trains_the_policy_and_logs_its_samples(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = train(run, "model.policy_lora.rank=0", "training.learning_rate=0.01")
    before = AutoModelForCausalLM.from_pretrained(run / "embedded").state_dict()
    after = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    log = read_rows(run / "train_log.jsonl")
    assert {"rewards/answer_reward/mean", "rewards/format_reward/mean"} <= log[0].keys()
    rows = read_rows(run / "completions.jsonl")
    assert {row["step"] for row in rows} == {1, 2}
    assert all(row["token_rewards"] is None and len(row["advantages"]) == len(row["tokens"]) for row in rows)


def test_resumed_adapter_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Trap: the library takes the reference's adapter for the policy's."""
    steps = ["training.max_steps=4", "training.save_steps=2", "training.beta=0.1", "training.learning_rate=0.01"]
    end = train(tmp_path / "run", *steps)
    expected = load_policy(str(end)).state_dict()
    shutil.rmtree(end)
    again = load_policy(str(train(tmp_path / "run", *steps, "training.resume=true"))).state_dict()
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_rewards_are_added_with_their_weights(tmp_path: Path) -> None:
    train(tmp_path / "run", "verifier.answer_weight=2", "verifier.format_weight=0.5")
    lines = [line for line in read_rows(tmp_path / "run/train_log.jsonl") if "reward" in line]
    for line in lines:
        answer, form = line["rewards/answer_reward/mean"], line["rewards/format_reward/mean"]
        assert line["reward"] == pytest.approx(2 * answer + 0.5 * form)
    assert any(line["rewards/answer_reward/mean"] for line in lines)
    assert any(line["rewards/format_reward/mean"] for line in lines)
