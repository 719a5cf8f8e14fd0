"""Puts the schemas and the configs folder within Hydra's reach, and turns a composed config into a dataclass."""

from pathlib import Path
from typing import TypeVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from reasoning_irl.config import schema
from reasoning_irl.config.validate import validate

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SCHEMAS = {
    "irl_train": schema.IRLTrainConfig,
    "sft_train": schema.SFTTrainConfig,
    "eval": schema.EvalConfig,
    "irl_eval": schema.IRLEvalConfig,
}

Config = TypeVar("Config")


class ConfigsOnSearchPath(SearchPathPlugin):
    """Keeps configs/base in reach when `--config-path=configs/...` replaces the main search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="reasoning_irl", path=CONFIGS.as_uri())


def register() -> None:
    """Registers schemas and search path with Hydra; may be called more than once."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node, package="_global_", provider="reasoning_irl")
    if ConfigsOnSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(ConfigsOnSearchPath)


def to_config(composed: DictConfig, expected: type[Config]) -> Config:
    """The composed config as a checked dataclass. Raises ConfigError that names the key and what it may be."""
    config = OmegaConf.to_object(composed)
    if not isinstance(config, expected):
        raise TypeError(f"the config's schema is {type(config).__name__}, not {expected.__name__}")
    validate(config)
    return config
