"""Runs the commands that a table of the paper needs and that are not done yet; see reproduce.sh.

A training run is done when the last file of its last checkpoint exists, an evaluation when its metrics are in
metrics.json. Interrupted training is resumed; a run folder without a checkpoint is set aside.
"""

import argparse
import functools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import register, schema
from reasoning_irl.config.compose import CONFIGS, SCRIPTS
from reasoning_irl.config.main import explain
from reasoning_irl.config.validate import known_keys
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.run_folder import damage_of

ROOT = Path(__file__).resolve().parents[1]
AIRL = [
    "llama3b/3B_1B_config_irl_train",
    "llama8b/8B_1B_config_irl_train",
    "qwen3b/3B_1B_config_irl_train",
    "qwen7b/7B_1B_config_irl_train",
]
ALGORITHMS = {schema.Algorithm.airl: schema.IRLTrainConfig, schema.Algorithm.sft: schema.SFTTrainConfig}
ALGORITHMS |= {schema.Algorithm.grpo: schema.GRPOTrainConfig}
# A key of metrics.json that only a finished evaluation has written.
EVALUATED = {"evaluate": "n_problems", "evaluate_irl": "choice/supervision"}
OWN_KEYS = ("wandb.run_name", "seed", "training.output_dir", "training.resume", "run_dir", "output_dir")


class Experiment(NamedTuple):
    """A training config and its variant from configs/variant, if any."""

    config: str
    variant: str | None = None


class Command(NamedTuple):
    """A command for one run folder; `kind` is train, evaluate, evaluate_irl or set_aside."""

    kind: str
    run_dir: Path
    arguments: list[str]
    is_done: bool


def table_experiments(table: str) -> list[Experiment]:
    """The experiments of a table. Raises UserError for an unknown table."""
    plain = [Experiment(config) for config in AIRL]
    if table == "main":
        baselines = [Experiment(f"{folder}/{name}") for folder, name in map(_split, _found("*b", "*_config_train"))]
        return sorted(plain + baselines, key=lambda experiment: _split(experiment.config)[0])
    if table in ("noper", "wgan"):
        return [Experiment(config, table) for config in AIRL]
    if table == "granularity":
        return plain + [Experiment(config, name) for config in AIRL for name in ("sparse", "step", "interval")]
    if table == "discriminator":
        return [Experiment(config) for config in _found("qwen7b-discriminator", "*_train")]
    if table == "medreason":
        return [Experiment(config) for config in _found("medreason", "*_train")]
    tables = "main, noper, wgan, granularity, discriminator or medreason"
    raise UserError(f"there is no table {table}: choose {tables}")


def commands_of(experiment: Experiment, seed: int, overrides: Sequence[str]) -> list[Command]:
    """The training and evaluation commands of one experiment and seed, each with whether it is done."""
    folder, name = _split(experiment.config)
    variant = [f"variant={experiment.variant}"] if experiment.variant else []
    base: Any = composed(experiment.config)
    kind = ALGORITHMS[base.algorithm]
    run_name = "_".join([base.wandb.run_name, *filter(None, [experiment.variant]), f"seed{seed}"])
    own = [f"wandb.run_name={run_name}", f"seed={seed}"]

    def arguments(script: str, config: str, *words: str) -> list[str]:
        return [script, f"--config-path=configs/{folder}", f"--config-name={config}", *words]

    chosen = [*variant, *own, *for_kind(kind, overrides)]
    config: Any = composed(experiment.config, *chosen)
    run_dir = Path(config.training.output_dir)
    commands = []
    is_trained = has_last_checkpoint(run_dir, config)
    is_started = not is_trained and (run_dir / "config.yaml").is_file()
    if is_started and any(run_dir.glob("checkpoint-*")):
        chosen = [*chosen, "training.resume=true"]
    elif is_started:
        commands.append(Command("set_aside", run_dir, ["mv", str(run_dir), str(_free_name(run_dir))], False))
    commands.append(Command("train", run_dir, arguments(SCRIPTS[kind], name, *chosen), is_trained))

    metrics = metrics_of(run_dir) if is_trained else {}
    evaluations: dict[str, tuple[str, type]] = {"evaluate": ("eval", schema.EvalConfig)}
    if kind is schema.IRLTrainConfig:
        evaluations["evaluate_irl"] = ("irl_eval", schema.IRLEvalConfig)
    for job, (suffix, evaluation) in evaluations.items():
        eval_name = name.removesuffix("_train").removesuffix("_irl") + f"_{suffix}"
        words = arguments(SCRIPTS[evaluation], eval_name, *own, *for_kind(evaluation, overrides))
        commands.append(Command(job, run_dir, words, EVALUATED[job] in metrics))
    return commands


@functools.cache
def composed(name: str, *overrides: str) -> Any:
    """A config of the repository, resolved and typed. Raises a one-line ConfigError for an invalid override."""
    register()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return OmegaConf.to_object(compose(name, overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{name}: {explain(error, schema.IRLTrainConfig)}") from error


def for_kind(kind: type, overrides: Sequence[str]) -> list[str]:
    """The overrides whose key a job has: an evaluation, for example, has no `training.max_steps`."""
    keys = {*known_keys(kind), "scale"}
    if kind not in (schema.EvalConfig, schema.IRLEvalConfig):
        keys |= {"dataset", "backbone"}
    if kind is schema.IRLTrainConfig:
        keys |= {"variant", "reward_backbone"}
    return [word for word in overrides if _key(word) in keys]


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises UserError for keys that no job has, and for keys that distinguish the runs of a table."""
    for word in overrides:
        if "=" not in word:
            raise UserError(f"{word} is not an override: write key=value")
        if _key(word) in OWN_KEYS:
            raise UserError(f"{word}: this key is set for each run of a table; choose seeds with SEEDS='0 1 2'")
        if not any(for_kind(kind, [word]) for kind in SCRIPTS):
            raise UserError(f"{word}: no job has the key {_key(word)}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="reproduce.sh", description="Runs a table of the paper.")
    parser.add_argument("table", help="main | noper | wgan | granularity | discriminator | medreason")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, such as scale=smoke, for all jobs with the key")
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--only", default="", help="only runs whose name contains this, such as qwen3b")
    parser.add_argument("--dry-run", action="store_true", help="list the commands without running them")
    arguments = parser.parse_intermixed_args(argv)
    try:
        check_overrides(arguments.overrides)
        experiments = table_experiments(arguments.table)
        runs = [commands_of(e, seed, arguments.overrides) for seed in arguments.seeds for e in experiments]
        runs = [commands for commands in runs if arguments.only in commands[0].run_dir.name]
        if not runs:
            raise UserError(f"no run of {arguments.table} has {arguments.only} in its name")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figure = figure_command(arguments.table, arguments.overrides, runs)
    if arguments.dry_run:
        for command in (command for commands in runs for command in commands):
            print(f"{'done' if command.is_done else 'to do':<6} {shown(command)}")
        print(f"then   {shlex.join(figure)}")
        return 0
    failed = [shown(command) for commands in runs for command in run_all(commands)]
    failed += [] if _run(figure) else [shlex.join(figure)]
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def run_all(commands: Sequence[Command]) -> Iterator[Command]:
    """Runs the commands that are not done, in order; yields a failed one and skips the rest of its run."""
    for command in commands:
        print(f"== {'done: ' if command.is_done else ''}{shown(command)}", flush=True)
        if not command.is_done and not _run(command.arguments):
            yield command
            return


def figure_command(table: str, overrides: Sequence[str], runs: Sequence[Sequence[Command]]) -> list[str]:
    """The command that plots all runs of a table and, for an ablation, the existing plain AIRL runs.

    A rehearsal is plotted into its own folder, so that it does not overwrite the figures of real runs.
    """
    folders = list(dict.fromkeys(command.run_dir for commands in runs for command in commands))
    plain = [folder.with_name(folder.name.replace(f"_{table}_seed", "_seed")) for folder in folders]
    folders = [folder for folder in plain if folder not in folders and (folder / "metrics.json").is_file()] + folders
    out = Path("figures/out") / ("smoke" if "scale=smoke" in overrides else "") / table
    return ["figures/plot_main.py", *map(str, folders), "--out", str(out)]


def shown(command: Command) -> str:
    """A command as a user would type it."""
    return shlex.join(["python", *command.arguments] if command.arguments[0].endswith(".py") else command.arguments)


def has_last_checkpoint(run_dir: Path, config: Any) -> bool:
    """Whether a training run reached its last step and saved it."""
    last = run_dir / f"checkpoint-{config.training.max_steps}"
    return last.is_dir() and damage_of(last, to_resume=False) is None


def metrics_of(run_dir: Path) -> dict[str, Any]:
    """The metrics of a run; empty if there are none yet."""
    path = run_dir / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _found(folder: str, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob(f"{folder}/{pattern}.yaml"))


def _split(config: str) -> tuple[str, str]:
    folder, _, name = config.partition("/")
    return folder, name


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _run(arguments: Sequence[str]) -> bool:
    """Runs a program or, with this Python, a script of the repository; returns whether it succeeded."""
    is_script = arguments[0].endswith(".py")
    program = [sys.executable, str(ROOT / arguments[0])] if is_script else [arguments[0]]
    return subprocess.run([*program, *arguments[1:]], check=False).returncode == 0


def _free_name(run_dir: Path) -> Path:
    n = 1
    while (free := run_dir.with_name(f"{run_dir.name}.{n}")).exists():
        n += 1
    return free


if __name__ == "__main__":
    raise SystemExit(main())
