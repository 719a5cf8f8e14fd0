"""Run folders: their file names, reading what training saved, and writing without overwriting anything."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_irl.utils.errors import UserError

CONFIG_FILE, VERSIONS_FILE = "config.yaml", "versions.json"
RECORDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "hydra-core", "reasoning_irl")
REWARD_MODEL, INITIAL_REWARD_MODEL = "reward_model", "reward_model_initial"
TRACES_FILE, METRICS_FILE, REPORT_FILE, FIGURES = "traces.jsonl", "metrics.json", "report.html", "figures"
SKIPPED_FILE = "skipped.jsonl"  # rows of a traces file that an evaluation skipped
PLANTED_FILE = "planted.jsonl"  # scored expert traces with one planted error, for the report

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def check_run_folder(run_dir: Path, *, resume: bool) -> None:
    """Raises UserError if a new run would overwrite another one, or a resumed run has no checkpoint."""
    if resume:
        newest_checkpoint(run_dir)
    elif (run_dir / CONFIG_FILE).exists():
        raise UserError(
            f"{run_dir} already contains a run, which is never overwritten: choose another training.output_dir, "
            "remove the folder, or continue that run with training.resume=true"
        )


def record_run(config: Any, run_dir: Path) -> None:
    """Creates the run folder and saves the config and the package versions in it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.structured(config), run_dir / CONFIG_FILE)
    versions = {package: version(package) for package in RECORDED}
    (run_dir / VERSIONS_FILE).write_text(json.dumps(versions, indent=2) + "\n")


def newest_checkpoint(run_dir: Path) -> Path:
    """The checkpoint-N folder with the largest N. Raises UserError if there is none."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in Path(run_dir).glob("checkpoint-*"))
    folders = [(int(match[1]), path) for match, path in named if match]
    if not folders:
        raise UserError(f"{run_dir} has no checkpoint: train there first, or set run_dir=FOLDER to a finished run")
    return max(folders)[1]


def policy_of(checkpoint: Path) -> str | None:
    """The checkpoint as the folder of a policy; None if it has none, as an offline reward's."""
    is_model = any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json"))
    return str(checkpoint) if is_model else None


def load_run_config(run_dir: Path) -> DictConfig:
    """The configuration that a training run was started with. Raises UserError if the folder has none."""
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{run_dir} is not a run folder (it has no {CONFIG_FILE}): set run_dir=FOLDER to a finished run"
        )
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} is not a configuration: it must contain keys and values")
    return config


def check_is_run(folder: str, *, needs_checkpoint: bool) -> None:
    """Raises UserError if the folder is not a training run, or lacks a checkpoint that is needed."""
    load_run_config(Path(folder))
    if needs_checkpoint:
        newest_checkpoint(Path(folder))


def refuse_to_overwrite(folder: Path, names: Sequence[str]) -> None:
    """Raises UserError if any of the files already exists in the folder."""
    for name in names:
        if (Path(folder) / name).exists():
            raise UserError(
                f"{Path(folder) / name} already exists and would be overwritten: choose another output_dir=... "
                "or remove it"
            )


def write_atomically(path: Path, text: str) -> None:
    """Writes a file completely or, if interrupted, leaves the old one as it was."""
    write_lines_atomically(path, [text])


def write_lines_atomically(path: Path, lines: Iterable[str]) -> None:
    """Like `write_atomically`, for text that is produced line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(lines)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def to_jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
