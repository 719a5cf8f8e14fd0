"""The real Unsloth backend on a CPU: whole jobs on a tiny Llama, each in a process that imports Unsloth first."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from reasoning_irl.data.loading import load_train
from reasoning_irl.data.tokens import TokenBatch, collate, encode_record
from reasoning_irl.models.loading import load_policy
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.models.reward_model import load_reward_model
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.configs import compose_tiny
from tests.helpers.traces import read_rows

JOB = Path(__file__).parent / "job.py"
UNSLOTH = ["scale=smoke", "model.backend=unsloth", "model.embedded.hidden_size=64", "model.embedded.heads=2"]


def train(config: str, run: Path, *overrides: str) -> Path:
    """Runs a job and returns its checkpoint; it may leave nothing in the working directory."""
    work = run.parent / f"{run.name}_work"
    work.mkdir()
    overrides = (*UNSLOTH, f"training.output_dir={run}", *overrides)
    done = run_python(JOB, config, *overrides, cwd=work, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr[-4000:]
    assert list(work.iterdir()) == []
    return run / "checkpoint-2"


@pytest.fixture(scope="module")
def airl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRL run on 4-bit weights with adapters on both models."""
    return train("llama3b/3B_1B_config_irl_train", tmp_path_factory.mktemp("airl") / "run", "model.load_in_4bit=true")


def batch(folder: Path) -> TokenBatch:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = load_train(compose_tiny().dataset).train[:6]
    sequences = [encode_record(tokenizer, record, record.target, 48) for record in records]
    assert len({len(sequence.prompt_ids) for sequence in sequences}) > 1
    return collate(sequences, tokenizer.pad_token_id)


def test_airl_on_4_bit_weights_runs_and_logs(airl: Path) -> None:
    log = read_rows(airl.parent / "train_log.jsonl")
    assert {"discriminator/heldout_auroc", "policy/entropy", "loss"} <= log[0].keys()
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in log if "loss" in line)
    adapter = json.loads((airl / "adapter_config.json").read_text())
    assert adapter["r"] == 4
    assert len(adapter["target_modules"]) == 7
    assert (airl / "reward_model" / "adapter_config.json").is_file()


def test_policy_can_be_loaded_without_unsloth_and_in_4_bits(airl: Path) -> None:
    tokens = batch(airl)
    with torch.no_grad():
        whole, _ = token_logps(load_policy(str(airl)), tokens)
        in_4bit, _ = token_logps(load_policy(str(airl), in_4bit=True), tokens)
    mask = tokens.completion_mask.bool()
    assert torch.isfinite(whole[mask]).all()
    # NF4 rounds the weights: close, but not the same.
    assert 0 < (whole - in_4bit)[mask].abs().mean() < 0.3


def test_loaded_reward_model_gives_the_same_scores(airl: Path, tmp_path: Path) -> None:
    tokens, tokenizer = batch(airl), AutoTokenizer.from_pretrained(airl)
    first = load_reward_model(airl / "reward_model", tokenizer, in_4bit=True)
    with torch.no_grad():
        scores = first.rewards(tokens)
    first.save(tmp_path / "again")
    with torch.no_grad():
        torch.testing.assert_close(
            load_reward_model(tmp_path / "again", tokenizer, in_4bit=True).rewards(tokens), scores
        )


def test_airl_can_start_from_an_sft_run(tmp_path: Path) -> None:
    sft = train("llama3b/sft_3B_config_train", tmp_path / "sft")
    assert (sft / "adapter_config.json").is_file()
    train("llama3b/3B_1B_config_irl_train", tmp_path / "airl", f"model.checkpoint={sft.parent}")


def test_grpo_runs_and_logs_its_rewards(tmp_path: Path) -> None:
    train("qwen3b/grpo_3B_config_train", tmp_path / "grpo", "model.load_in_4bit=true")
    log = read_rows(tmp_path / "grpo" / "train_log.jsonl")
    assert "rewards/answer_reward/mean" in log[0]
