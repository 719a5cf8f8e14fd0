"""Hostile input: what is given, to what, and the line that it must end in. The YAML files beside this hold the entries.

An outcome is the line that a user gets. Anything else (a traceback, a value that is accepted, code of a file that runs)
is an error of Python here, which fails the entry's test.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from reasoning_irl import check_data
from reasoning_irl.config import to_config
from reasoning_irl.config.compose import CONFIGS, SCHEMAS, load_dataset_config
from reasoning_irl.config.main import explain
from reasoning_irl.config.schema import DatasetName, Granularity, IRLTrainConfig, RewardHead, ScorerConfig
from reasoning_irl.data.loading import DATASETS, FileSet, load_test, load_train
from reasoning_irl.data.samples import read_samples
from reasoning_irl.data.sources import read_rows, to_records
from reasoning_irl.data.tokens import encode_prompt
from reasoning_irl.eval.scoring.scorers import find_scorer
from reasoning_irl.eval.traces.other_model import other_rewards
from reasoning_irl.eval.traces.resumable import PartialTraces
from reasoning_irl.eval.traces.trace_file import Skipped, read_traces
from reasoning_irl.export import export
from reasoning_irl.metrics.summary import read_metrics
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model
from reasoning_irl.training.reward_checkpoint import load_training_state
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import (
    PART,
    REWARD_MODEL,
    checkpoint_to_resume,
    chosen_checkpoint,
    newest_checkpoint,
    publish_checkpoint,
    record_resumed,
    record_run,
)
from tests.helpers.configs import MAX_VALUE, compose_raw, compose_tiny
from tests.helpers.traces import QUESTION, RIGHT

FOLDER = Path(__file__).parent
KINDS = ("overrides", "demonstrations", "traces", "folders")
TITLES = {
    "overrides": "Arguments and settings",
    "demonstrations": "Demonstrations",
    "traces": "Traces and samples",
    "folders": "Runs, checkpoints and models",
}
CONFIG_NAMES = {"irl_train": "config_irl_train", "evaluate": "config_eval", "evaluate_irl": "config_irl_eval"}
ENVIRONMENT = {"WANDB_API_KEY": "wandb-key-of-the-tests", "HF_TOKEN": "hf-token-of-the-tests", "WANDB_MODE": ""}
ROW = {"question": "3 + 4?", "reasoning": "3 + 4 = 7", "answer": "7"}
TRACE = {"question": QUESTION, "completion": RIGHT, "correct": True}
PWNED = "PWNED"  # the file that the code in a hostile file would leave behind
CHECKPOINT = "checkpoint-2"
DEEP = "[" * 1500 + "]" * 1500


@dataclass(frozen=True)
class Case:
    """One entry: `given` are its other keys, `error` is a part of the line that it ends in."""

    kind: str
    name: str
    error: str
    given: dict[str, Any]


def read_cases(kind: str) -> list[Case]:
    entries = yaml.safe_load((FOLDER / f"{kind}.yaml").read_text(encoding="utf-8"))
    own = ("name", "error")
    return [
        Case(kind, entry["name"], entry["error"], {key: value for key, value in entry.items() if key not in own})
        for entry in entries
    ]


CASES = [case for kind in KINDS for case in read_cases(kind)]


def outcome(case: Case, folder: Path, run: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """The line that a case ends in, in an empty working folder; `run` is a good run folder, which is copied."""
    try:
        match case.kind:
            case "overrides":
                return _arguments(case.given, folder)
            case "demonstrations":
                return _demonstrations(case.given, folder)
            case "traces":
                _traces(case.given, folder, tokenizer)
            case "folders":
                _folders(case.given, folder, run)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return line_of(error)
    raise AssertionError("the input was accepted")


def line_of(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else explain(error, *SCHEMAS.values())


def words_of(given: dict[str, Any], folder: Path) -> list[str]:
    """The arguments of an entry, with its stand-ins filled in."""
    stand_ins = {
        "{file}": str(folder / "a_file"),
        "{folder}": str(folder),
        "{sources}": str(CONFIGS.parent / "src" / "reasoning_irl"),
        "{long}": "x" * 300,
        "{deep}": DEEP,
        "{digits}": "9" * 5000,
        "{dots}": "a." * 3000 + "b",
        "{surrogate}": "\udcff",
    }
    words = []
    for word in given["give"]:
        for stand_in, text in stand_ins.items():
            word = word.replace(stand_in, text)
        words.append(word)
    return words


# Arguments


def _arguments(given: dict[str, Any], folder: Path) -> str:
    (folder / "a_file").write_text("neither a folder nor a netrc")
    program, words = given.get("program", "irl_train"), words_of(given, folder)
    environment = {
        **ENVIRONMENT,
        **{key: value.replace("{file}", str(folder / "a_file")) for key, value in given.get("environment", {}).items()},
    }
    with _environment(environment):
        if given.get("whole"):
            return run_program(program, words)
        to_config(overridden(program, words), *SCHEMAS.values())
    raise AssertionError("the arguments were accepted")


def run_program(program: str, words: list[str]) -> str:
    """Runs a program in this process until it exits with code 2; returns the line after `error: ` on stderr."""
    main = import_module(f"reasoning_irl.cli.{program}").main
    said, given = io.StringIO(), sys.argv
    sys.argv = [f"{program}.py", *words]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as stop:
        if stop.code != 2:
            raise AssertionError(f"exit code {stop.code}") from stop
    else:
        raise AssertionError("the program ran")
    finally:
        sys.argv = given
        GlobalHydra.instance().clear()
    return said.getvalue().removeprefix("error: ").removesuffix("\n")


@cache
def _composed(name: str) -> DictConfig:
    return compose_raw(name)


def overridden(program: str, words: list[str]) -> DictConfig:
    """The composed config with overrides of keys applied, as Hydra does after composing, which is the slow part."""
    overrides = OverridesParser.create().parse_overrides(words)
    config = deepcopy(_composed(CONFIG_NAMES[program]))
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
    return config


@contextlib.contextmanager
def _environment(changed: dict[str, str]) -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(changed)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    for name in [name for name, value in changed.items() if not value]:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# Demonstrations and traces


def _demonstrations(given: dict[str, Any], folder: Path) -> str:
    name = given.get("file", "mine.jsonl")
    path = folder / name
    data = _bytes(given, [ROW])
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    elif name.endswith("/"):
        path.mkdir()
    read = folder / given.get("read", name)
    if given.get("program") == "check_data":
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            assert check_data.main([str(read)]) == 2
        return said.getvalue().removeprefix("error: ").removesuffix("\n")
    source = DATASETS[DatasetName(given.get("format", "jsonl"))]
    assert isinstance(source, FileSet)
    if "tested_on" in given:
        test = {"same": path, "copy": folder / "copy.jsonl", None: None}[given["tested_on"]]
        (folder / "copy.jsonl").write_bytes(data or b"")
        dataset = replace(
            _training_config().dataset,
            name=DatasetName.jsonl,
            path=str(path),
            test_path=None if test is None else str(test),
            n_train=None,
        )
        load_train(dataset)
        load_test(dataset, 2, None)
    else:
        to_records(read_rows(str(read), source.hub, "train", "dataset.path"), source.parse, "")
    raise AssertionError("the demonstrations were accepted")


def _bytes(given: dict[str, Any], rows: list[dict[str, Any]]) -> bytes | None:
    """The content of an entry's file; None if it has none."""
    if "bytes" in given:
        return given["bytes"].encode("latin-1")
    if "repeat" in given:
        text, times = given["repeat"]
        return (text * times).encode()
    if "text" in given:
        text = given["text"].replace("{digits}", "9" * 5000).replace("{deep}", DEEP)
        many = "\n".join(json.dumps({**ROW, "question": f"{n} + 4?"}) for n in range(20))
        return text.replace("{rows}", many).replace("{row}", json.dumps(ROW)).encode()
    changes = given.get("rows", [given["changes"]] if "changes" in given else [])
    if "options_of" in given:
        changes = [{"options": "[" * given["options_of"]}]
    if not changes:
        return None
    changed = [{**rows[0], **change} for change in changes]
    return "".join(json.dumps(row) + "\n" for row in changed).encode()


def _traces(given: dict[str, Any], folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = folder / "t.jsonl"
    ids = tokenizer(RIGHT, add_special_tokens=False)["input_ids"]
    own = {"token_ids": ids, "prompt_ids": ids[:2]} if given.get("own_ids") else {}
    path.write_bytes(_bytes(given, [{**TRACE, **own}]) or b"")
    match given.get("reader", "traces"):
        case "traces":
            read_traces(path, tokenizer, 0.0, 0)
        case "samples":
            read_samples(path, tokenizer, "", 16, 64)
        case "other":
            good = folder / "good.jsonl"
            good.write_text(json.dumps(TRACE) + "\n")
            other_rewards(path, read_traces(good, tokenizer, 0.0, 0), Skipped(good))
        case "partial":
            PartialTraces(path, {"seed": 0}, 1)
        case "metrics":
            read_metrics(path)


# Folders


def save_run(folder: Path) -> Path:
    """A run folder with one checkpoint of an untrained policy and reward model."""
    config = _training_config()
    record_run(config, folder)
    part = folder / PART / CHECKPOINT
    save_embedded(config.model.embedded, MAX_VALUE, part)
    tokenizer = load_tokenizer(str(part))
    spec = RewardSpec(RewardHead.likelihood, Granularity.dense, 1)
    build_reward_model(str(part), spec, tokenizer).save(part / REWARD_MODEL)
    tokenizer.save_pretrained(part / REWARD_MODEL)
    publish_checkpoint(part, folder / CHECKPOINT)
    return folder


class Payload:
    """Pickled, a program that leaves a file behind."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {PWNED}",)


def _folders(given: dict[str, Any], folder: Path, run: Path) -> None:
    own = folder / "run"
    shutil.copytree(run, own)
    for step in given["do"]:
        ((operation, argument),) = step.items()
        OPERATIONS[operation](own, *(argument if isinstance(argument, list) else [argument]))
    READERS[given["reader"]](own, own / CHECKPOINT)


def _write(own: Path, name: str, text: str) -> None:
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_text(text.replace("{deep}", DEEP).replace("{folder}", str(own)))


def _remove(own: Path, name: str) -> None:
    path = own / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _set(own: Path, name: str, changes: dict[str, Any]) -> None:
    """Changes keys of a JSON or YAML file; null removes one."""
    path = own / name
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *groups, last = key.split(".")
        group = values
        for inner in groups:
            group = group[inner]
        if value is None:
            del group[last]
        else:
            group[last] = value
    path.write_text(json.dumps(values))


def _tensor(own: Path, name: str, key: str, shape: list[int] | None) -> None:
    """Replaces a tensor by zeros of another shape, or removes it."""
    tensors = load_file(own / name)
    if shape is None:
        del tensors[key]
    else:
        tensors[key] = torch.zeros(shape)
    save_file(tensors, own / name, {"format": "pt"})


OPERATIONS: dict[str, Callable[..., Any]] = {
    "write": _write,
    "write_bytes": lambda own, name, text: (own / name).write_bytes(text.encode("latin-1")),
    "remove": _remove,
    "mkdir": lambda own, name: (own / name).mkdir(),
    "cut": lambda own, name, size: (own / name).write_bytes((own / name).read_bytes()[:size]),
    "set": _set,
    "tensor": _tensor,
    "pickle": lambda own, name: (own / name).write_bytes(pickle.dumps({"weight": Payload()}, protocol=2)),
}


def _build(checkpoint: Path) -> None:
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 1)
    build_reward_model(str(checkpoint), spec, load_tokenizer(str(checkpoint)))


def _evaluate(run: Path) -> None:
    words = [f"run_dir={run}", "wandb.mode=disabled"]
    with _environment(ENVIRONMENT):
        raise UserError(run_program("evaluate", words))


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "evaluate": lambda run, _: _evaluate(run),
    "dataset": lambda run, _: load_dataset_config(run),
    "resume": lambda run, _: record_resumed(_training_config(), run),
    "chosen": lambda run, _: chosen_checkpoint(run, "../other"),
    "best": lambda run, _: chosen_checkpoint(run, "best"),
    "newest": lambda run, _: newest_checkpoint(run),
    "to_resume": lambda run, _: checkpoint_to_resume(run),
    "state": lambda run, _: load_training_state(run),
    "policy": lambda _, checkpoint: load_policy(str(checkpoint)),
    "adapter": lambda _, checkpoint: load_policy(str(checkpoint)),
    "tokenizer": lambda _, checkpoint: load_tokenizer(str(checkpoint)),
    "template": lambda _, checkpoint: encode_prompt(
        load_tokenizer(str(checkpoint)), [{"role": "user", "content": "3 + 4?"}]
    ),
    "build": lambda _, checkpoint: _build(checkpoint),
    "reward": lambda run, _: RewardModel.from_run(run / CHECKPOINT),
    "scorer": lambda _, checkpoint: find_scorer(str(checkpoint), _scorer_config()),
    "export": lambda run, _: export(run, run / "out"),
}


@cache
def _training_config() -> IRLTrainConfig:
    return compose_tiny()


@cache
def _scorer_config() -> ScorerConfig:
    config: ScorerConfig = OmegaConf.to_object(compose_raw("config_irl_eval")).model  # type: ignore[union-attr]
    return config
