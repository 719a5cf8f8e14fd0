"""Checks beyond types: ranges, keys that must agree, files that must exist.

They run before torch is imported, so that a mistake shows within a second and not after loading a model.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_irl.config import schema
from reasoning_irl.utils.errors import ConfigError
from reasoning_irl.utils.reading import is_unicode

# Environment variables that no file may contain.
SECRETS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_SECRET = 8  # characters; a shorter value is a placeholder, which texts contain by accident
LONGEST_NAME = 255  # bytes; of file systems

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def validate(config: Any) -> None:
    """Raises ConfigError for the first invalid value."""
    check_values(config)
    _check_run_name(config.wandb.run_name)
    if isinstance(config, schema.EvalConfig):
        _check_evaluation(config)
    if isinstance(config, schema.IRLEvalConfig):
        _check_scorer(config.model)
    if isinstance(config, schema.TrainConfig):
        _check_algorithm(config)
        _check_dataset(config.dataset)
        _check_names(config.model)
        _check_4bit(config.model)
    if isinstance(config, schema.PolicyTrainConfig):
        _check_policy(config)
        _check_vllm_server(config.model)
    if isinstance(config, schema.OfflineTrainConfig):
        _check_offline(config)
    if isinstance(config, schema.IRLTrainConfig | schema.OfflineTrainConfig):
        _check_discriminator(config.model)
    if isinstance(config, schema.IRLTrainConfig):
        _check_reward_model(config.model)
        _check_guard(config.guard)
    if isinstance(config, (schema.IRLTrainConfig, schema.GRPOTrainConfig)):
        _check_batches(config)


def check_values(node: Any, prefix: str = "") -> None:
    """Raises ConfigError for the first value of a configuration, or of its part `prefix`, that can never be used."""
    for key, value, metadata in _leaves(node, prefix):
        _check_range(key, value, metadata)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, list):
                raise ConfigError(f"{key}={value} is a list of lists: write the values in one list")
            if isinstance(text, str) and not isinstance(text, StrEnum):
                _check_text(key, text, metadata.get("is_name", False))


def known_keys(node: type) -> Iterator[str]:
    """Yields the dotted names of all keys of a schema."""
    for field in dataclasses.fields(node):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from (f"{field.name}.{key}" for key in known_keys(field.type))
        else:
            yield field.name


def unknown_keys(composed: DictConfig, node: type) -> Iterator[str]:
    """Yields the dotted names of a composed config's keys that its schema lacks."""
    known = set(known_keys(node))
    groups = {key.rpartition(".")[0] for key in known} - {""}
    groups |= {group.rpartition(".")[0] for group in groups} - {""}

    def inside(value: Any, prefix: str) -> Iterator[str]:
        for name, inner in value.items():
            key = f"{prefix}{name}"
            if key in groups and isinstance(inner, dict):
                yield from inside(inner, f"{key}.")
            elif key not in known:
                yield key

    yield from inside(OmegaConf.to_container(composed), "")


def nearest_key(key: str, *expected: type) -> str:
    """The end of an error line about a key that does not exist: the key that may be meant."""
    keys = list(dict.fromkeys(known for node in expected for known in known_keys(node)))
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not close:  # right name, wrong place
        close = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]][:1]
    return f"; did you mean {close[0]}?" if close else f"; see --cfg job for all {len(keys)} keys"


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for field in dataclasses.fields(node):
        value, key = getattr(node, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value, field.metadata


def _check_range(key: str, value: Any, metadata: Any) -> None:
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} is not a finite number")
    low, high, above = (metadata.get(name) for name in ("low", "high", "above"))
    if isinstance(value, int) and high is None:
        high = schema.MAX_COUNT
    too_low = (low is not None and value < low) or (above is not None and value <= above)
    if too_low or (high is not None and value > high):
        bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        bounds += [f"above {above}"] * (above is not None)
        raise ConfigError(f"{key}={value} is out of range: it must be {' and '.join(bounds)}")


def _check_text(key: str, text: str, is_name: bool) -> None:
    for secret in SECRETS:
        if len(os.environ.get(secret, "")) >= SHORTEST_SECRET and os.environ[secret] in text:
            raise ConfigError(f"{key} contains the value of {secret}, which would be saved with the run: take it out")
    if not is_unicode(text) or "\0" in text or (is_name and not text.isprintable()):
        raise ConfigError(f"{key}={text!a} contains a character that cannot be written: take it out")
    if "${" in text:  # which the saved config would refer to another key by
        raise ConfigError(f"{key}={text!a} contains ${{, which stands for a reference: write it without")
    if is_name and not text.strip():
        raise ConfigError(f"{key} is empty: give it a value, or null where docs/config.md allows it")
    if is_name and max(len(part.encode()) for part in Path(text).parts or [""]) > LONGEST_NAME:
        raise ConfigError(f"{key}={text[:20]}... is too long for the name of a file: at most {LONGEST_NAME} bytes")


def _check_run_name(name: str) -> None:
    """The name is also a folder's, which must be in the folder of all runs."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).name:
        raise ConfigError(
            f"wandb.run_name={name} leaves the folder of the runs: use a plain name, and set the run folder itself "
            "(training.output_dir, run_dir) for another place"
        )


def _check_algorithm(config: schema.TrainConfig) -> None:
    own = schema.ALGORITHM_OF[type(config)]
    if config.algorithm != own:
        raise ConfigError(
            f"algorithm={config.algorithm}, but these are the keys of {own}: choose another --config-name, "
            "as docs/experiments.md lists them"
        )


def _check_evaluation(config: schema.EvalConfig) -> None:
    if max(config.eval.ks, default=1) > config.sampling.n_samples or min(config.eval.ks, default=1) < 1:
        raise ConfigError(f"eval.ks={config.eval.ks} must be in 1..sampling.n_samples={config.sampling.n_samples}")
    _check_models({"policy_path": config.policy_path})


def _check_dataset(dataset: schema.DatasetConfig) -> None:
    if dataset.name == schema.DatasetName.medical_kd:
        dataset.name = schema.DatasetName.medreason
    if dataset.name in schema.GENERATED:
        if dataset.path or dataset.test_path:
            raise ConfigError(
                f"dataset.name={dataset.name} is generated and reads no file: remove dataset.path and "
                "dataset.test_path, or set dataset.name=gsm8k or dataset.name=jsonl"
            )
        if dataset.n_train is None:
            raise ConfigError(f"dataset.name={dataset.name} is endless: set dataset.n_train")
        return
    if dataset.name == schema.DatasetName.jsonl and not dataset.path:
        raise ConfigError("dataset.name=jsonl needs dataset.path=FILE")
    for key, path in (("path", dataset.path), ("test_path", dataset.test_path)):
        if path and not Path(path).exists():
            raise ConfigError(f"dataset.{key}={path} does not exist: use the path of a file or folder")


def _check_offline(config: schema.OfflineTrainConfig) -> None:
    if not Path(config.dataset.samples_path).is_file():
        raise ConfigError(f"dataset.samples_path={config.dataset.samples_path} does not exist: use a traces file")
    if config.model.reward_name is None:
        raise ConfigError("model.reward_name is missing: name the model that the reward model starts from")
    _check_frozen(config.model)


def _check_frozen(model: schema.OfflineModelConfig) -> None:
    n = model.reward_frozen_layers
    if model.reward_layers is not None and n > model.reward_layers:
        raise ConfigError(
            f"model.reward_frozen_layers={n} is more than the model.reward_layers={model.reward_layers} that are kept"
        )


def _check_discriminator(model: schema.DiscriminatorConfig) -> None:
    if model.dense_rewards is not None:
        alias = schema.Granularity.dense if model.dense_rewards else schema.Granularity.sparse
        model.reward_granularity = alias
    if model.reward_lm_coef and model.reward_head != schema.RewardHead.likelihood:
        raise ConfigError(
            f"model.reward_lm_coef={model.reward_lm_coef} trains the likelihood head: "
            "set model.reward_head=likelihood, or set it to 0"
        )
    if model.reward_layers is not None and model.reward_head != schema.RewardHead.plain:
        raise ConfigError(
            f"model.reward_layers={model.reward_layers} removes the upper layers, which predict tokens: "
            "set model.reward_head=plain, or set it to null"
        )
    if model.reward_layers is not None and model.reward_lora.rank:
        raise ConfigError(
            f"model.reward_layers={model.reward_layers} cannot be combined with an adapter, which is loaded onto the "
            "whole model: set model.reward_lora.rank=0, or reward_layers to null"
        )
    if model.reward_lb >= model.reward_ub:
        raise ConfigError(f"model.reward_lb={model.reward_lb} must be below model.reward_ub={model.reward_ub}")
    if model.num_neg_perturbations_per_expert and not model.neg_perturb_fns:
        raise ConfigError(
            "model.neg_perturb_fns is empty: name at least one, or set model.num_neg_perturbations_per_expert=0"
        )


def _check_reward_model(model: schema.RewardModelConfig) -> None:
    if model.reward_form == schema.RewardForm.airl and model.classifier_loss != schema.ClassifierLoss.bce:
        raise ConfigError(
            f"model.reward_form=airl needs the BCE discriminator: with "
            f"model.classifier_loss={model.classifier_loss} use model.reward_form=logit"
        )
    if model.reward_warmup_steps and not model.num_neg_perturbations_per_expert:
        raise ConfigError(
            "model.reward_warmup_steps needs perturbations as negatives: set it to 0, or "
            "model.num_neg_perturbations_per_expert to at least 1"
        )


def _check_guard(guard: schema.GuardConfig) -> None:
    """Refuses reactions under which the measure could never come back within its limit.

    Without policy updates the samples stay as they are, and without its own updates so does a discriminator at chance.
    """
    log, skip, throttle, roll_back, stop = schema.Reaction
    usable = {
        "on_min_auroc": (guard.on_min_auroc, (log, skip, roll_back, stop)),
        "on_max_auroc": (guard.on_max_auroc, (log, throttle, roll_back, stop)),
        "on_max_length_correlation": (guard.on_max_length_correlation, (log, skip, roll_back, stop)),
        "on_min_entropy": (guard.on_min_entropy, (log, roll_back, stop)),
        "on_min_well_formed": (guard.on_min_well_formed, (log, roll_back, stop)),
    }
    for key, (reaction, choices) in usable.items():
        if reaction not in choices:
            raise ConfigError(
                f"guard.{key}={reaction} would last for ever, because nothing could then change what is measured: "
                f"choose {', '.join(choices[:-1])} or {choices[-1]}"
            )


def _check_scorer(model: schema.ScorerConfig) -> None:
    kind, separator = model.reward_kind, model.step_separator
    if kind == schema.RewardKind.prm and not separator:
        raise ConfigError(
            "model.reward_kind=prm is read after each step: set model.step_separator to the text it was trained with"
        )
    if separator is not None and kind not in (schema.RewardKind.auto, schema.RewardKind.prm):
        raise ConfigError(f"model.step_separator is for a PRM: remove it, or remove model.reward_kind={kind}")
    if (model.positive_token is None) != (model.negative_token is None):
        raise ConfigError("model.positive_token and model.negative_token are compared with each other: set both")
    if model.positive_token is not None and separator is None:
        raise ConfigError("model.positive_token is for a PRM that is a language model: set model.step_separator too")
    names = {key: getattr(model, key) for key in ("reward_path", "frozen_path", "policy_path", "sft_path")}
    _check_models({f"model.{key}": name for key, name in names.items()})


def _check_batches(config: schema.IRLTrainConfig | schema.GRPOTrainConfig) -> None:
    training = config.training
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    if rows % training.num_generations:
        raise ConfigError(
            f"training.per_device_train_batch_size x gradient_accumulation_steps = {rows} samples per step cannot "
            f"be split into groups of training.num_generations={training.num_generations}: make it a multiple"
        )
    if training.save_steps % training.num_iterations:
        raise ConfigError(
            f"training.save_steps={training.save_steps} must be a multiple of num_iterations={training.num_iterations}"
            ": a run can only be resumed where new samples are drawn"
        )
    prompts = rows // training.num_generations
    with_experts = isinstance(config, schema.IRLTrainConfig) and config.model.add_expert_to_policy_optim
    if with_experts and prompts % training.gradient_accumulation_steps:
        raise ConfigError(
            f"model.add_expert_to_policy_optim adds one row per prompt: the {prompts} prompts per step must "
            f"be divisible by training.gradient_accumulation_steps={training.gradient_accumulation_steps}"
        )


def _check_4bit(model: schema.ModelConfig | schema.OfflineModelConfig) -> None:
    """4-bit weights are frozen, so every model that is trained needs LoRA; only Unsloth can hand them to vLLM."""
    if (
        isinstance(model, schema.ModelConfig)
        and model.load_in_4bit
        and model.fast_inference
        and model.backend == schema.Backend.transformers
    ):
        raise ConfigError(
            "model.fast_inference=true cannot sample from 4-bit weights that transformers loaded: set "
            "model.backend=unsloth, or model.load_in_4bit=false"
        )
    loras = {}
    if isinstance(model, schema.ModelConfig):
        loras["policy_lora"] = model.policy_lora
    if isinstance(model, schema.DiscriminatorConfig):
        loras["reward_lora"] = model.reward_lora
    for key, lora in loras.items():
        if model.load_in_4bit and lora.rank == 0:
            raise ConfigError(
                f"model.load_in_4bit=true freezes the weights: set model.{key}.rank to at least 1, "
                "or model.load_in_4bit=false"
            )


def _check_policy(config: schema.PolicyTrainConfig) -> None:
    embedded = config.model.embedded
    if embedded.hidden_size % embedded.heads:
        raise ConfigError(
            f"model.embedded.hidden_size={embedded.hidden_size} must be divisible by "
            f"model.embedded.heads={embedded.heads}"
        )
    is_arithmetic = config.dataset.name == schema.DatasetName.arithmetic
    if config.warm_start.enabled and not is_arithmetic:
        raise ConfigError("warm_start.enabled needs dataset.name=arithmetic: only that data set has an annotator")
    if config.model.policy_name == "embedded" and not config.model.checkpoint and not is_arithmetic:
        raise ConfigError(
            "model.policy_name=embedded only knows the words of dataset.name=arithmetic: use a folder or a hub name"
        )


def _check_vllm_server(model: schema.ModelConfig) -> None:
    if model.vllm_server is None:
        return
    if not model.fast_inference:
        raise ConfigError(f"model.vllm_server={model.vllm_server} samples with vLLM: set model.fast_inference=true")
    if model.backend == schema.Backend.unsloth:
        raise ConfigError("model.backend=unsloth starts a vLLM of its own: set model.vllm_server=null")


def _check_names(model: schema.ModelConfig | schema.OfflineModelConfig) -> None:
    names: dict[str, str | None] = {}
    if isinstance(model, schema.ModelConfig):
        names |= {"policy_name": model.policy_name, "checkpoint": model.checkpoint}
    if isinstance(model, schema.DiscriminatorConfig):
        names["reward_name"] = model.reward_name
    if names.get("policy_name") == "embedded":
        del names["policy_name"]
    _check_models({f"model.{key}": name for key, name in names.items()})


def _check_models(names: Mapping[str, str | None]) -> None:
    """Raises ConfigError for a key that names neither a folder of a model, nor what may be one on the hub."""
    for key, name in names.items():
        if name is None or Path(name).is_dir():
            continue
        if _looks_local(name) or not _HUB_NAME.fullmatch(name):
            raise ConfigError(f"{key}={name} does not exist: use a model folder, or a hub name (owner/name)")


def _looks_local(name: str) -> bool:
    """Whether a model's name is a path, as it cannot be owner/name on the hub."""
    owner, slash, rest = name.partition("/")
    return owner in ("", ".", "..", "~", "outputs") or not slash or "/" in rest or Path(owner).is_dir()
