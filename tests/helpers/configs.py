"""Configs of the repository, composed and shrunk for tests."""

import copy
import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import register, to_config
from reasoning_irl.config.compose import CONFIGS, SCHEMAS
from reasoning_irl.config.main import explain
from reasoning_irl.config.schema import EvalConfig, IRLEvalConfig, IRLTrainConfig
from reasoning_irl.utils.errors import UserError

Config = TypeVar("Config")

MAX_VALUE = 40
TINY = [
    "model.embedded.hidden_size=16",
    "model.embedded.layers=2",
    "model.embedded.heads=2",
    "dataset.n_train=40",
    "dataset.n_heldout=4",
]


@functools.cache
def _composed(name: str, *overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def compose_raw(name: str, *overrides: str) -> DictConfig:
    """Composes a config as Hydra does, without checking it; the caller may change it."""
    return copy.deepcopy(_composed(name, *overrides))


def compose_config(name: str, kind: type[Config], *overrides: str) -> Config:
    """Composes and checks a config of one job."""
    return to_config(compose_raw(name, *overrides), kind)


def compose_any(name: str, *overrides: str) -> Any:
    """Composes and checks a config, whichever job it is for."""
    return to_config(compose_raw(name, *overrides), *SCHEMAS.values())


def compose_tiny(overrides: Sequence[str] = ()) -> IRLTrainConfig:
    """The embedded default with a tiny model and few experts."""
    return compose_config("config_irl_train", IRLTrainConfig, *TINY, *overrides)


def eval_config(*overrides: str) -> EvalConfig:
    """evaluate.py with 2 samples of 3 validation problems and of 4 test problems."""
    small = ("sampling.n_samples=2", "eval.n_problems=4", "eval.n_validation=3", "eval.ks=[1]")
    return compose_config("config_eval", EvalConfig, *small, "eval.bootstrap_draws=20", *overrides)


def irl_config(*overrides: str) -> IRLEvalConfig:
    """evaluate_irl.py with few planted errors and few bootstrap draws."""
    small = ("eval.n_planted=4", "eval.bootstrap_draws=20", "eval.batch_size=9", "eval.report_traces=6")
    return compose_config("config_irl_eval", IRLEvalConfig, *small, *overrides)


def config_error(*overrides: str) -> str:
    """The error message that a user gets for these overrides of config_irl_train."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        compose_any("config_irl_train", *overrides)
    return str(caught.value) if isinstance(caught.value, UserError) else explain(caught.value, IRLTrainConfig)
