"""Configs of the repository, shrunk."""

from collections.abc import Sequence
from typing import TypeVar

from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.config.schema import IRLTrainConfig

Config = TypeVar("Config")

MAX_VALUE = 40
TINY = [
    "model.embedded.hidden_size=16",
    "model.embedded.layers=2",
    "model.embedded.heads=2",
    "dataset.n_train=40",
    "dataset.n_heldout=4",
]


def compose_config(name: str, kind: type[Config], *overrides: str) -> Config:
    """A config of the repository with overrides, checked."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose(name, overrides=list(overrides)), kind)


def compose_tiny(overrides: Sequence[str] = ()) -> IRLTrainConfig:
    return compose_config("config_irl_train", IRLTrainConfig, *TINY, *overrides)
