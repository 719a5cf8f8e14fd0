"""Registers the schemas and the configs folder with Hydra, and converts a composed config to a dataclass."""

import re
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import schema
from reasoning_irl.config.validate import check_values, nearest_key, unknown_keys, validate
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.run_folder import CONFIG_FILE, REWARD_MODEL, load_run_config

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel has configs/ in the package; the repository has it at the top.
CONFIGS = (_PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parents[1]) / "configs"
SCHEMAS = {
    "irl_train": schema.IRLTrainConfig,
    "sft_train": schema.SFTTrainConfig,
    "grpo_train": schema.GRPOTrainConfig,
    "offline_irl_train": schema.OfflineTrainConfig,
    "eval": schema.EvalConfig,
    "irl_eval": schema.IRLEvalConfig,
}

SCRIPTS = {
    schema.IRLTrainConfig: "irl_train.py",
    schema.SFTTrainConfig: "sft_train.py",
    schema.GRPOTrainConfig: "train.py",
    schema.OfflineTrainConfig: "irl_train.py",
    schema.EvalConfig: "evaluate.py",
    schema.IRLEvalConfig: "evaluate_irl.py",
}

Config = TypeVar("Config")


class ConfigsOnSearchPath(SearchPathPlugin):
    """Keeps configs/ on the search path when `--config-path=configs/...` replaces the main one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="reasoning_irl", path=CONFIGS.as_uri())


def register() -> None:
    """Registers schemas, search path and resolvers with Hydra; may be called more than once."""
    store = ConfigStore.instance()
    for name, node in SCHEMAS.items():
        store.store(group="schema", name=name, node=node, package="_global_", provider="reasoning_irl")
    if ConfigsOnSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(ConfigsOnSearchPath)
    OmegaConf.register_new_resolver("run_suffix", run_suffix, replace=True)
    OmegaConf.register_new_resolver("run_to_score", run_to_score, replace=True)
    OmegaConf.register_new_resolver("scored_dir", scored_dir, replace=True)
    OmegaConf.register_new_resolver("of_run", of_run, replace=True)
    OmegaConf.register_new_resolver("options_of", options_of, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def run_suffix() -> str:
    """The suffix that distinguishes a run's name: its variants and, in a sweep, its other overrides.

    Empty if there are none, or if the config is composed outside a Hydra application.
    """
    if not HydraConfig.initialized():
        return ""
    hydra = HydraConfig.get()
    words: list[str] = []
    for key, _, value in (override.lstrip("+").partition("=") for override in hydra.overrides.task):
        if key == "variant":
            words += re.findall(r"\w+", value)
        elif hydra.mode == RunMode.MULTIRUN and key != "scale":
            words.append(re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{value}").strip("-"))
    return "".join(f"_{word}" for word in words)


def options_of(group: str) -> str:
    """The options of a configuration group, for --help."""
    return ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


def folder_name(*folders: str | None) -> str:
    """The name of the first folder that is given; empty without one, which is reported later."""
    given = next(filter(None, folders), "")
    name = Path(given).name
    return Path(given).resolve().name if given and name in ("", "..") else name


def of_run(run_dir: str, key: str, otherwise: int) -> int:
    """A value of a run's `training` section; `otherwise` if there is no such run, which is reported later."""
    path = Path(run_dir) / CONFIG_FILE
    found = OmegaConf.select(load_run_config(Path(run_dir)), f"training.{key}") if path.is_file() else None
    return otherwise if found is None else int(found)


def run_to_score(folder: str | None = None, *, _root_: DictConfig) -> str | None:
    """The run whose samples are scored; None if both traces and a reward model are given.

    Without `folder` the run is named by wandb.run_name, which is read only then: it may depend on the output folder.
    """
    if _root_.eval.traces and _root_.model.reward_path:
        return None
    return folder or f"outputs/{_root_.wandb.run_name}"


def scored_dir(run_dir: str | None, *, _root_: DictConfig) -> str:
    """Where scores are written: the run or, without one, a folder named after the traces and the reward model."""
    if run_dir is not None or not (_root_.eval.traces and _root_.model.reward_path):
        return str(run_dir)
    reward = [part for part in Path(_root_.model.reward_path).parts if part not in ("/", "..", REWARD_MODEL)]
    name = re.sub(r"[^\w.-]+", "-", "-".join([Path(_root_.eval.traces).stem, *reward[-2:]]))
    return f"outputs/scored/{name}"


def to_config(composed: DictConfig, *expected: type[Config]) -> Config:
    """Converts a composed config to a validated dataclass of one of the expected types.

    Raises ConfigError that names the invalid key and its allowed values, or the program that the config is for.
    """
    config = OmegaConf.to_object(composed)
    if not isinstance(config, expected):
        raise ConfigError(f"this config is for another program: run {command(SCRIPTS[type(config)])}")
    for key in unknown_keys(composed, type(config)):  # added with +key=value, which Hydra allows
        raise ConfigError(f"there is no key {key}{nearest_key(key, type(config))}")
    validate(config)
    return config


def load_dataset_config(run_dir: Path) -> schema.DatasetConfig:
    """The typed `dataset` section of a run's configuration. Raises UserError if it cannot be read."""
    config, path = load_run_config(run_dir), run_dir / CONFIG_FILE
    if "dataset" not in config:
        raise UserError(f"{path} has no `dataset`: it is not the configuration of a training run")
    try:
        plain: Any = OmegaConf.to_container(config.dataset)
        kind = schema.OfflineDatasetConfig if "samples_path" in plain else schema.DatasetConfig
        dataset: schema.DatasetConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), plain))  # type: ignore[assignment]  # the structured config's own class
        check_values(dataset, "dataset.")
    except (OmegaConfBaseException, ConfigError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path}: `dataset` cannot be read: {reason}; mend it by hand, or train again with this version"
        ) from error
    return dataset
