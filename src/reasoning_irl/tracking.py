"""Weights & Biases logging, if `wandb.mode` enables it. Everything logged there is in local files too."""

import math
import netrc
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reasoning_irl.config.schema import EvalConfig, IRLEvalConfig, TrainConfig, WandbConfig, WandbMode
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.processes import is_main

ID_FILE = "wandb_run_id.txt"  # in the folder of a training run


def wandb_mode(config: WandbConfig) -> WandbMode:
    """The effective mode: as usual with W&B, the environment's WANDB_MODE overrides the config."""
    named = os.environ.get("WANDB_MODE")
    try:
        return WandbMode(named) if named else config.mode
    except ValueError:
        choices = " or ".join(WandbMode)
        raise UserError(f"WANDB_MODE={named} in the environment is invalid: set it to {choices}, or unset it") from None


def check_login(config: WandbConfig) -> None:
    """Raises UserError if runs are logged online but nobody is logged in, before hours are spent."""
    if wandb_mode(config) != WandbMode.online or os.environ.get("WANDB_API_KEY") or not is_main():
        return
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        hosts = netrc.netrc(path).hosts if path.is_file() else {}
    except (netrc.NetrcParseError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): mend it, or set wandb.mode=offline") from None
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].partition("/")[0]
    if server not in hosts:
        raise UserError(
            f"wandb.mode=online, but nobody is logged in to {server}: run `wandb login`, or set wandb.mode=offline "
            "(kept on disk for `wandb sync`) or wandb.mode=disabled"
        )


@contextmanager
def wandb_run(config: TrainConfig | EvalConfig | IRLEvalConfig, job_type: str, folder: Path) -> Iterator[Any]:
    """A W&B run, with the job's resolved config, for the duration of the context.

    None if W&B is disabled, and in all processes but the main one.

    The run's own files are written to `folder`. A resumed training goes on in the run that it started; an evaluation's
    config has `training_run`: the address of that run or, offline, its id.
    """
    mode = wandb_mode(config.wandb)
    if mode == WandbMode.disabled or not is_main():
        yield None
        return
    import wandb

    is_training = isinstance(config, TrainConfig)
    run_dir = config.training.output_dir if isinstance(config, TrainConfig) else config.run_dir
    id_file = Path(run_dir or folder) / ID_FILE
    if is_training and not id_file.is_file():
        id_file.write_text(secrets.token_hex(4))
    resolved = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    with wandb.init(
        entity=config.wandb.entity,
        project=config.wandb.project,
        group=config.wandb.group,
        name=config.wandb.run_name,
        tags=config.wandb.tags,
        job_type=job_type,
        id=id_file.read_text() if is_training else None,
        resume="allow" if is_training else None,
        mode=mode.value,  # type: ignore[arg-type]
        dir=folder,
        config=resolved,  # type: ignore[arg-type]
    ) as run:
        if not is_training and id_file.is_file():
            trained = id_file.read_text()
            run.config.update({"training_run": run.url.replace(run.id, trained) if run.url else trained})
        yield run


def log_table(name: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Logs rows with equal keys as a W&B table, if a run is open."""
    import wandb

    if wandb.run is not None and rows:
        columns: list[str | int] = [*rows[0]]
        table = wandb.Table(columns=columns, data=[list(row.values()) for row in rows])
        wandb.log({name: table, "train/global_step": step})


def log_histogram(name: str, values: Sequence[float], step: int) -> None:
    """Logs a histogram to W&B, if a run is open, without the values that are not finite, which a warning counts."""
    import wandb

    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < len(values):
        logger.warning("step %d: %d values of %s are not finite", step, len(values) - len(finite), name)
    if wandb.run is not None and finite:
        wandb.log({name: wandb.Histogram(finite), "train/global_step": step})


def log_artifact(run: Any, kind: str, path: Path) -> None:
    """Uploads a file or a folder of a W&B run as its artifact of this kind."""
    import wandb

    artifact = wandb.Artifact(f"{run.id}-{kind}", type=kind)
    if path.is_dir():
        artifact.add_dir(str(path))
    else:
        artifact.add_file(str(path))
    run.log_artifact(artifact)


def log_evaluation(
    config: EvalConfig | IRLEvalConfig, job_type: str, metrics: Mapping[str, Any], report: Path | None = None
) -> None:
    """Logs an evaluation's metrics, without undefined ones, as the summary of its own W&B run, and its report."""
    with wandb_run(config, job_type, Path(config.output_dir)) as run:
        if run is not None:
            run.summary.update({key: value for key, value in metrics.items() if value is not None})
            if report is not None:
                log_artifact(run, "report", report)
