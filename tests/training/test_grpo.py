"""GRPO on verifiable rewards: the job end to end on a tiny model."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from reasoning_irl.config.schema import GRPOTrainConfig
from reasoning_irl.training import jobs
from tests.helpers.configs import compose_config


def grpo_config(*overrides: str) -> GRPOTrainConfig:
    return compose_config("qwen3b/grpo_3B_config_train", GRPOTrainConfig, "scale=smoke", *overrides)


def test_a_run_learns_from_the_answer_key_and_writes_its_samples_down(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = jobs.train_grpo(
        grpo_config(f"training.output_dir={run}", "model.policy_lora.rank=0", "training.learning_rate=0.01")
    )
    before = AutoModelForCausalLM.from_pretrained(run / "embedded").state_dict()
    after = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    assert before.keys() == after.keys()
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]
    assert {"rewards/answer_reward/mean", "rewards/format_reward/mean"} <= log[0].keys()
    rows = [json.loads(line) for line in (run / "completions.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {1, 2}
    assert all(row["token_rewards"] is None and len(row["advantages"]) == len(row["tokens"]) for row in rows)


def test_the_format_is_rewarded_with_its_weight(tmp_path: Path) -> None:
    """A tiny model starts with neither right answers nor form: the total is the weighted sum of both all the same."""
    run = tmp_path / "run"
    jobs.train_grpo(grpo_config(f"training.output_dir={run}", "verifier.format_weight=0.5"))
    for line in map(json.loads, (run / "train_log.jsonl").read_text().splitlines()):
        if "reward" in line:
            expected = line["rewards/answer_reward/mean"] + 0.5 * line["rewards/format_reward/mean"]
            torch.testing.assert_close(line["reward"], expected)
