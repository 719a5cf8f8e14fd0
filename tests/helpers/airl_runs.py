"""Short AIRL runs on a tiny model, and what they leave in their folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reasoning_irl.models.loading import load_policy
from reasoning_irl.models.reward_model import load_reward_model
from tests.helpers.traces import read_rows

SMALL = [
    "warm_start.enabled=false",
    "training.max_steps=2",
    "training.save_steps=2",
    "training.per_device_train_batch_size=8",
    "training.num_generations=4",
    "training.max_completion_length=24",
    "model.reward_warmup_steps=2",
    "model.reward_batch_size=4",
    "model.reward_policy_batch_size=4",
    "model.reward_micro_batch_size=16",
    "guard.enabled=false",
]
Run = Callable[..., Path]


def policy_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_policy(str(checkpoint)).state_dict()


def reward_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_reward_model(checkpoint / "reward_model").state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of both logs, without times."""
    logs = [run / name for name in ("train_log.jsonl", "completions.jsonl") if (run / name).is_file()]
    rows = [row for log in logs for row in read_rows(log)]
    timed = ("seconds", "time", "runtime", "per_second", "num_tokens", "flos")
    return [{key: value for key, value in row.items() if not any(word in key for word in timed)} for row in rows]


def logged(checkpoint: Path, name: str) -> list[float]:
    """The logged values of a metric, in order."""
    return [line[name] for line in read_rows(checkpoint.parent / "train_log.jsonl") if name in line]
