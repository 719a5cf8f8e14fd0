"""The entry point shared by all scripts: compose, validate and run; user errors are printed as one line."""

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from reasoning_irl.config.compose import CONFIGS, register, to_config
from reasoning_irl.config.validate import nearest_key
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.log import quiet_libraries

GRACE = 10.0  # seconds for which a process that has failed leaves the word to the main one


def hydra_main(config_name: str, *expected: type) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Like hydra.main, but passes the job a validated dataclass and reports user errors in one line with exit code 2.

    The config may be of any of the `expected` types. HYDRA_FULL_ERROR=1 shows the full traceback, as in Hydra itself.
    """

    def decorate(job: Callable[[Any], None]) -> Callable[[], None]:
        register()
        shows_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"

        @functools.wraps(job)
        def task(composed: DictConfig) -> None:
            # Caught here as well: Hydra prints its own line for an exception that leaves the job.
            quiet_libraries()
            processes.hush()
            with nullcontext() if shows_trace else _one_line(*expected):
                job(to_config(composed, *expected))

        entry = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(task)

        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra pass exceptions on to us
            with nullcontext() if shows_trace else _one_line(*expected):
                sys.argv[1:] = find_config_path(sys.argv[1:], config_name)  # read by Hydra
                entry()
            processes.stop()

        return main

    return decorate


def find_config_path(arguments: Sequence[str], default: str) -> list[str]:
    """The arguments with an absolute --config-path: a folder seen from here or, if there is none, one of the package's.

    Raises ConfigError for --config-path without --config-name, which would run the embedded default, unless the folder
    has a config with the `default` name.
    """
    words = list(arguments)
    options = [word.partition("=")[0] for word in words]
    at = next((n for n, option in enumerate(options) if option in ("--config-path", "-cp")), None)
    if at is None:
        return words
    _, joined, value = words[at].partition("=")
    given = value if joined else "".join(words[at + 1 : at + 2])
    if not given or "://" in given:  # Hydra reports the one and finds the other
        return words
    folder = Path(given) if Path(given).is_dir() else CONFIGS.parent / given
    is_named = {"--config-name", "-cn"} & set(options) or (folder / f"{default}.yaml").is_file()
    if not is_named:
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        listed = f"one of {', '.join(names)}" if names else "a file in that folder"
        raise ConfigError(f"--config-path={given} needs --config-name too: {listed}")
    words[at : at + (1 if joined else 2)] = [f"--config-path={folder.resolve()}"]
    return words


@contextmanager
def _one_line(*expected: type) -> Iterator[None]:
    """Ends the program with one line and exit code 2 on errors that the user can fix.

    If several processes have the same error, only the main one shows it.
    """
    try:
        yield
        return
    except UserError as error:
        message = str(error)
    except (HydraException, OmegaConfBaseException) as error:
        message = explain(error, *expected)
    where = ""
    if not processes.is_main():
        time.sleep(GRACE)  # the launcher ends this process in its sleep if the main one has failed too
        where = f" in process {processes.rank()}"
    print(f"error{where}: {message}", file=sys.stderr)
    raise SystemExit(2)


def explain(error: Exception, *expected: type) -> str:
    """One line for a composition error: the key, its allowed values, and the closest existing key."""
    for cause in _chain(error):
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
            return f"there is no key {cause.full_key}{nearest_key(cause.full_key, *expected)}"
        if isinstance(cause, InterpolationResolutionError) and "recursi" in str(cause.msg).lower():
            return "run_dir and wandb.run_name are derived from each other: set run_dir=FOLDER"
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {_first_line(cause.msg or str(cause))}"
    line = _first_line(str(error))
    if group := re.match(r"Could not override '([^']+)'\. No match in the defaults list", line):
        return f"this config has no group {group[1]} to choose from: remove {group[1]}="
    return line


def _missing_config(error: MissingConfigException) -> str:
    """One line for a missing config or group choice, with the alternatives."""
    name = error.missing_cfg_file
    if name is None:
        return f"{_first_line(str(error))} Set --config-path to a folder such as configs/llama3b"
    if error.options:
        group, _, choice = str(name).rpartition("/")
        return f"{group}={choice} does not exist: choose {group} from {', '.join(error.options)}"
    return f"there is no config {name}: set --config-name to a file in the --config-path folder, without .yaml"


def _chain(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
