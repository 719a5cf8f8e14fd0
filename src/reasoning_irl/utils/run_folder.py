"""Run folders: their file names, reading what training saved, and writing without overwriting anything."""

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.reading import read_yaml

CONFIG_FILE, VERSIONS_FILE, TRAIN_LOG = "config.yaml", "versions.json", "train_log.jsonl"
RECORDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "hydra-core", "reasoning_irl")
REWARD_MODEL, INITIAL_REWARD_MODEL = "reward_model", "reward_model_initial"
TRACES_FILE, METRICS_FILE, REPORT_FILE, FIGURES = "traces.jsonl", "metrics.json", "report.html", "figures"
PARTIAL_FILE = "traces.partial.jsonl"  # samples of an evaluation that is not finished
SKIPPED_FILE = "skipped.jsonl"  # rows of a traces file that an evaluation skipped
PLANTED_FILE = "planted.jsonl"  # scored expert traces with one planted error, for the report

MANIFEST = "checkpoint.json"  # the files of a checkpoint with their sizes, written last
PART = ".unfinished"  # the folder in a run folder in which a checkpoint is written
# Without a manifest, as in a checkpoint of an older version: a folder with one of these can be evaluated.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    f"{REWARD_MODEL}/model.safetensors",
    f"{REWARD_MODEL}/adapter_model.safetensors",
)
# Keys that a resumed run may change.
FREE = (
    "training.resume",
    "training.output_dir",
    "training.max_steps",
    "training.max_seconds",
    "training.save_steps",
    "training.save_total_limit",
    "training.best_metric",
    "training.greater_is_better",
    "training.logging_steps",
    "training.eval_steps",
    "training.completions_steps",
    "training.n_completions",
    "guard.",
    "model.vllm_server",
    "wandb.",
)

NEWEST, BEST = "newest", "best"  # how a run's checkpoint can be called besides its name

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def check_run_folder(run_dir: Path, *, resume: bool) -> None:
    """Raises UserError if a new run would overwrite another one, cannot be written, or there is no run to resume."""
    check_can_write(run_dir)
    exists = (run_dir / CONFIG_FILE).exists()
    if resume and not exists:
        raise UserError(f"{run_dir} has no run to resume (no {CONFIG_FILE}): remove training.resume=true to start one")
    if exists and not resume:
        raise UserError(
            f"{run_dir} already contains a run, which is never overwritten: choose another training.output_dir, "
            "remove the folder, or continue that run with training.resume=true"
        )


def check_can_write(folder: Path) -> None:
    """Raises UserError, and leaves nothing behind, if files cannot be written to the folder, which need not exist.

    Nor may they be written among the sources of this package, or around them.
    """
    choose = "choose another output folder (training.output_dir, or output_dir of an evaluation)"
    sources = Path(__file__).resolve().parents[1]
    try:
        resolved = folder.resolve()
        if resolved.is_relative_to(sources) or sources.is_relative_to(resolved):
            raise UserError(f"{folder} has the sources of this program in it, or is one of their folders: {choose}")
        there = next(path for path in (resolved, *resolved.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):  # fails in a file as well
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): {choose}") from None


def record_run(config: Any, run_dir: Path) -> None:
    """Creates the run folder and saves the config and the package versions in it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.structured(config)))
    versions = {package: version(package) for package in RECORDED}
    (run_dir / VERSIONS_FILE).write_text(json.dumps(versions, indent=2) + "\n")


def record_resumed(config: Any, run_dir: Path) -> None:
    """Records the settings that a resumed run changes, and names them. Raises UserError for one that it may not."""
    before, now = _flat(load_run_config(run_dir)), _flat(OmegaConf.structured(config))
    missing = sorted(key for key in now if key not in before and not key.startswith(FREE))
    if missing:
        raise UserError(
            f"{run_dir}/{CONFIG_FILE} lacks {missing[0]}: it is of another kind of run or of an older version, and "
            "cannot be resumed; start another run from it with model.checkpoint=FOLDER"
        )
    changed = {key: (before[key], value) for key, value in now.items() if key in before and before[key] != value}
    for key, (old, new) in changed.items():
        if not key.startswith(FREE):
            raise UserError(
                f"{run_dir} was started with {key}={old}, and a resumed run cannot change it to {new}: repeat "
                f"{key}={old}, or start another run"
            )
        if key == "training.max_steps" and (not isinstance(old, int) or new < old):
            raise UserError(f"{run_dir} was started with {key}={old}, and {new} is fewer: repeat {key}={old}")
        if key != "training.resume":
            logger.warning("resumed with %s=%s instead of %s", key, new, old)
    write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _flat(config: DictConfig) -> dict[str, Any]:
    """All values by their dotted key; lists are values."""
    found: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            found[prefix] = value

    add("", OmegaConf.to_container(config, enum_to_str=True))
    return found


def newest_checkpoint(run_dir: Path) -> Path:
    """The whole checkpoint-N folder with the largest N. Raises UserError if there is none; names damaged ones."""
    found = find_checkpoint(run_dir)
    if found is None:
        raise UserError(f"{run_dir} has no checkpoint: train there first, or set run_dir=FOLDER to a finished run")
    return found


def best_checkpoint(run_dir: Path, metric: str, greater_is_better: bool) -> Path | None:
    """The whole checkpoint before which the mean of a logged metric is best; of equal ones, the newest.

    The mean is over the rows since the checkpoint before it. None if the metric was not logged before any.
    """
    sign, rows = 1 if greater_is_better else -1, logged_rows(run_dir)
    known = []
    for path in whole_checkpoints(run_dir):
        since = json.loads((path / MANIFEST).read_text()).get("since", 0)
        values = [row[metric] for row in rows if since < row["step"] <= step_of(path) and metric in row]
        if values:
            known.append((sign * sum(values) / len(values), step_of(path), path))
    return max(known)[2] if known else None


def logged_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, without a last one that is torn because the run was killed."""
    log = run_dir / TRAIN_LOG
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def chosen_checkpoint(run_dir: Path, choice: str) -> Path:
    """The checkpoint that is called `newest`, `best`, or by its folder's name. Raises UserError if it is not there."""
    if choice == NEWEST:
        return newest_checkpoint(run_dir)
    if choice == BEST:
        training = load_run_config(run_dir).training
        if training.get("best_metric") is None:
            raise UserError(f"{run_dir} was trained without training.best_metric: use checkpoint={NEWEST}")
        best = best_checkpoint(run_dir, training.best_metric, training.greater_is_better)
        if best is None:
            raise UserError(
                f"no checkpoint of {run_dir} was compared by {training.best_metric}: use checkpoint={NEWEST}"
            )
        return best
    path = run_dir / choice
    damage = damage_of(path, to_resume=False) if _CHECKPOINT.fullmatch(choice) and path.is_dir() else "it is not there"
    if damage:
        raise UserError(f"checkpoint={choice} of {run_dir}: {damage}; use {NEWEST}, {BEST} or a checkpoint's name")
    return path


def checkpoint_to_resume(run_dir: Path, n_processes: int = 1) -> Path | None:
    """The newest checkpoint from which training can go on; None if the run was killed before its first.

    Raises UserError if there are checkpoints and none is whole, or if another number of processes wrote it.
    """
    found = find_checkpoint(run_dir, to_resume=True)
    if found is None and any(run_dir.glob("checkpoint-*")):
        raise UserError(
            f"no checkpoint in {run_dir} can be resumed (see above): start another run from it with "
            "model.checkpoint=FOLDER, or remove its checkpoints to start it from the beginning"
        )
    # The library saves the random states of each process. An offline reward has none of them, and one process.
    n_before = found and (len(list(found.glob("rng_state*.pth"))) or 1)
    if found and n_before != n_processes:
        raise UserError(
            f"{found} was saved by {n_before} processes, and {n_processes} would go on otherwise: start "
            f"{n_before}, or another run from it with model.checkpoint={run_dir}"
        )
    return found


def find_checkpoint(run_dir: Path, *, to_resume: bool = False) -> Path | None:
    """The whole checkpoint-N folder with the largest N, or None; one `to_resume` from has a manifest."""
    for path in _by_step(run_dir):
        damage = damage_of(path, to_resume=to_resume)
        if damage is None:
            return path
        logger.warning("%s is left out: %s", path, damage)
    return None


def whole_checkpoints(run_dir: Path) -> Iterator[Path]:
    """Yields the checkpoint-N folders from which training could go on, the largest N first."""
    yield from (path for path in _by_step(run_dir) if damage_of(path, to_resume=True) is None)


def _by_step(run_dir: Path) -> list[Path]:
    """The checkpoint-N folders, the largest N first."""
    named = ((_CHECKPOINT.fullmatch(path.name), path) for path in Path(run_dir).glob("checkpoint-*"))
    return [path for _, path in sorted(((int(match[1]), path) for match, path in named if match), reverse=True)]


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def damage_of(checkpoint: Path, *, to_resume: bool) -> str | None:
    """What a checkpoint lacks, as a phrase, or None if it is whole."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        if to_resume:
            return f"it has no {MANIFEST}, so it was never finished, or is of an older version"
        return None if any((checkpoint / name).is_file() for name in WEIGHTS) else "it has no weights"
    try:
        found = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError):
        return f"its {MANIFEST} is damaged"
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files:
        return f"its {MANIFEST} names no files"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
    return None


def publish_checkpoint(part: Path, target: Path, since: int = 0) -> None:
    """Renames a finished folder, with its manifest, so that `target` is whole whenever it exists.

    Args:
        since: the step of the checkpoint before it.
    """
    files = {str(path.relative_to(part)): path.stat().st_size for path in sorted(part.rglob("*")) if path.is_file()}
    (part / MANIFEST).write_text(json.dumps({"files": files, "since": since}, indent=1) + "\n")
    if target.exists():  # damaged, or made again
        remove_checkpoint(target)
    part.parent.mkdir(exist_ok=True)
    part.rename(target)
    if not any(part.parent.iterdir()):
        part.parent.rmdir()


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint, which is moved away first, so that it is never half there."""
    old = path.parent / PART / f"{path.name}.old"
    old.parent.mkdir(exist_ok=True)
    path.rename(old)
    shutil.rmtree(old)
    if not any(old.parent.iterdir()):
        old.parent.rmdir()


def trim_rows(path: Path, last_step: int) -> None:
    """Removes the rows of a log that are of steps after `last_step`, which will be made again, and a torn last row."""
    if path.is_file():
        # As bytes: a row may be torn within a character, and a text in it may have line breaks of Unicode.
        lines = path.read_bytes().splitlines(keepends=True)
        write_lines_atomically(path, (line.decode() for line in lines if _row_step(line) <= last_step))


def _row_step(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf  # other values may be NaN
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf


def policy_of(checkpoint: Path) -> str | None:
    """The checkpoint as the folder of a policy; None if it has none, as an offline reward's."""
    is_model = any((checkpoint / name).is_file() for name in ("config.json", "adapter_config.json"))
    return str(checkpoint) if is_model else None


def name_in(folder: Path, name: str) -> str:
    """The path of a folder relative to the one that it is in, which stays right if both move; else its name."""
    path, within = Path(name).resolve(), folder.resolve()
    return str(path.relative_to(within)) if path.is_relative_to(within) else name


def load_run_config(run_dir: Path) -> DictConfig:
    """The configuration that a run was started, or last resumed, with. Raises UserError if the folder has none."""
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{run_dir} is not a run folder (it has no {CONFIG_FILE}): set run_dir=FOLDER to a finished run"
        )
    return read_yaml(path, "use the file that training wrote")


def check_traces(path: Path) -> None:
    """Raises DataError if there is no traces file of this name."""
    if not path.is_file():
        raise DataError(f"traces file {path} not found: run {command('evaluate.py')} first, or set eval.traces=FILE")


def check_is_run(folder: str, checkpoint: str | None) -> None:
    """Raises UserError if the folder is not a training run, or lacks the checkpoint; None: it needs none."""
    load_run_config(Path(folder))
    if checkpoint is not None:
        chosen_checkpoint(Path(folder), checkpoint)


def refuse_to_overwrite(folder: Path, names: Sequence[str]) -> None:
    """Raises UserError if any of the files already exists in the folder."""
    for name in names:
        if (Path(folder) / name).exists():
            raise UserError(
                f"{Path(folder) / name} already exists and would be overwritten: choose another output_dir=... "
                "or remove it"
            )


def check_not_evaluated(folder: Path) -> None:
    """Raises UserError if the folder has the samples of a finished evaluation; an unfinished one can go on."""
    if (folder / METRICS_FILE).is_file():  # written last
        (folder / PARTIAL_FILE).unlink(missing_ok=True)
    if not (folder / PARTIAL_FILE).is_file():
        refuse_to_overwrite(folder, [TRACES_FILE, METRICS_FILE])


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
