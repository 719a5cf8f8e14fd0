"""Runs of AIRL and of SFT on a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reasoning_irl.config.schema import IRLTrainConfig, SFTTrainConfig
from reasoning_irl.training import jobs
from tests.helpers.airl_runs import SMALL, Run
from tests.helpers.configs import compose_config
from tests.helpers.sft_runs import Train


@pytest.fixture
def run(tiny_config: Callable[[list[str]], IRLTrainConfig], tmp_path: Path) -> Run:
    """Trains for two steps with overrides and returns the checkpoint."""

    def train(name: str, *overrides: str) -> Path:
        return jobs.train_airl(tiny_config([*SMALL, f"training.output_dir={tmp_path / name}", *overrides]))

    return train


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def run(*overrides: str) -> Path:
        given = ("scale=smoke", f"training.output_dir={tmp_path / 'run'}", "training.save_steps=2", *overrides)
        return jobs.train_sft(compose_config("llama3b/sft_3B_config_train", SFTTrainConfig, *given))

    return run
