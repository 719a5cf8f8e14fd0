"""Run folders: what training left in them, and writing beside it without losing anything."""

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
SKIPPED_FILE = "skipped.jsonl"  # rows of a traces file that an evaluation left out
PLANTED_FILE = "planted.jsonl"  # experts with one edit, scored: for the report

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def check_run_folder(run_dir: Path, *, resume: bool) -> None:
    """Raises UserError where a new run would meet another one, or a resumed run finds nothing to go on from."""
    if resume:
        newest_checkpoint(run_dir)
    elif (run_dir / CONFIG_FILE).exists():
        raise UserError(
            f"{run_dir} holds another run, and nothing of it is overwritten: choose another training.output_dir, "
            "remove the folder, or go on with that run by training.resume=true"
        )


def record_run(config: Any, run_dir: Path) -> None:
    """Makes the folder and writes down the config and the versions of what runs it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.structured(config), run_dir / CONFIG_FILE)
    versions = {package: version(package) for package in RECORDED}
    (run_dir / VERSIONS_FILE).write_text(json.dumps(versions, indent=2) + "\n")


def newest_checkpoint(run_dir: Path) -> Path:
    """The checkpoint-N folder with the largest N. Raises UserError where there is none."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in Path(run_dir).glob("checkpoint-*"))
    folders = [(int(match[1]), path) for match, path in named if match]
    if not folders:
        raise UserError(f"{run_dir} has no checkpoint: train there first, or set run_dir=FOLDER to a finished run")
    return max(folders)[1]


def load_run_config(run_dir: Path) -> DictConfig:
    """The training configuration that a run was started with. Raises UserError where the folder has none."""
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{run_dir} is no run folder (it has no {CONFIG_FILE}): set run_dir=FOLDER to a finished run")
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} is not a configuration: it must hold keys and values")
    return config


def check_is_run(folder: str, *, needs_checkpoint: bool) -> None:
    """Raises UserError where there is no training run, or one without the checkpoint that is needed."""
    load_run_config(Path(folder))
    if needs_checkpoint:
        newest_checkpoint(Path(folder))


def refuse_to_overwrite(folder: Path, names: Sequence[str]) -> None:
    """Raises UserError where one of the files is in the folder already."""
    for name in names:
        if (Path(folder) / name).exists():
            raise UserError(
                f"{Path(folder) / name} is there already and would be overwritten: choose another output_dir=... "
                "or remove it"
            )


def write_atomically(path: Path, text: str) -> None:
    """Writes a whole file or, where that is cut short, leaves what was there."""
    write_lines_atomically(path, [text])


def write_lines_atomically(path: Path, lines: Iterable[str]) -> None:
    """Likewise, for a text that is made line by line."""
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
