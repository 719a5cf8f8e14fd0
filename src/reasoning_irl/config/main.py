"""The entry point shared by all scripts: compose, validate and run; user errors are printed as one line."""

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from reasoning_irl.config.compose import CONFIGS, options_of, register, to_config
from reasoning_irl.config.validate import nearest_key
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.log import quiet_libraries

GRACE = 10.0  # seconds for which a process that has failed leaves the word to the main one
OF_COMPOSITION = (HydraException, OmegaConfBaseException)
# What they raise for arguments that they do not expect.
UNEXPECTED = (ValueError, TypeError, OSError, RecursionError)
LONGEST_LINE = 300  # characters of a message that is not ours
# What to do about messages of the libraries that name only what is wrong.
ADVICE = (
    (r"is not Optional", "give it a value"),
    (r"to Integer", "give a whole number"),
    (r"to Float", "give a number"),
    (r"not a valid bool", "give true or false"),
    (r"is not a ListConfig|with ListConfig", "give a list, as in [a,b]"),
    (r"is not a subclass of \w+Config", "it is a group of keys: set one of them, as in GROUP.KEY=VALUE"),
    (r"NoneType is not a subclass|is not a subclass of str|Cannot convert|not a primitive", "give plain text"),
    (r"does not support deletion", "set it to another value instead"),
    (r"^Could not delete", "take the override away"),
    (r"missing mandatory value", "give it a value"),
    (r"Interpolation key .* not found", "name a key that exists"),
    (r"Environment variable .* not found", "set it, or write the value"),
    (r"Unsupported interpolation type", "write the value itself"),
    (r"at input|raised while resolving interpolation", "write the value itself"),
    (r"^Ambiguous value", "put a list in [...] and text in quotes, or add --multirun to run all of them"),
    (r"^Could not append", "take the + away"),
    (r"^Additional config directory", "give a folder that exists"),
    (r"^Multiple values for", "give one of them"),
)


def hydra_main(config_name: str, *expected: type) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Like hydra.main, but passes the job a validated dataclass and reports user errors in one line with exit code 2.

    The config may be of any of the `expected` types. HYDRA_FULL_ERROR=1 shows the full traceback, as in Hydra itself.
    """

    def decorate(job: Callable[[Any], None]) -> Callable[[], None]:
        register()
        shows_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
        has_started = False  # the job: from then on, an error of Python is a fault of ours and not of the configuration

        @functools.wraps(job)
        def task(composed: DictConfig) -> None:
            nonlocal has_started
            # Caught here as well: Hydra prints its own line for an exception that leaves the job.
            quiet_libraries()
            processes.hush()
            with nullcontext() if shows_trace else _one_line(*expected):
                try:
                    config: Any = to_config(composed, *expected)
                except OF_COMPOSITION:
                    raise
                except UNEXPECTED as error:
                    raise _unreadable(error) from error
                has_started = True
                job(config)

        entry = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(task)

        def main() -> None:
            nonlocal has_started
            has_started = False
            os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra pass exceptions on to us
            with nullcontext() if shows_trace else _one_line(*expected):
                check_arguments(sys.argv[1:])
                sys.argv[1:] = find_config_path(sys.argv[1:], config_name)  # read by Hydra
                try:
                    entry()
                except OF_COMPOSITION:
                    raise
                except UNEXPECTED as error:
                    if has_started:
                        raise
                    raise _unreadable(error) from error
            processes.stop()

        return main

    return decorate


def check_arguments(words: Sequence[str]) -> None:
    """Raises ConfigError for arguments that Hydra's parser would answer with a page of usage."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --hydra-help lists the options")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(list(words))


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


def _unreadable(error: Exception) -> ConfigError:
    if isinstance(error, RecursionError):
        return ConfigError("a value is nested too deeply: write flat values")
    return ConfigError(f"the arguments cannot be read ({_first_line(str(error))}): write key=value")


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
    except OF_COMPOSITION as error:
        message = explain(error, *expected)
    where = ""
    if not processes.is_main():
        time.sleep(GRACE)  # the launcher ends this process in its sleep if the main one has failed too
        where = f" in process {processes.rank()}"
    print(f"error{where}: {message}", file=sys.stderr)
    raise SystemExit(2)


def explain(error: Exception, *expected: type) -> str:
    """One line for a composition error: the key, its allowed values, the closest existing key, and what to do."""
    for cause in _chain(error):
        if isinstance(cause, UserError):  # of one of our resolvers
            return str(cause)
    message = _explain(error, *expected)
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, message)), None)
    return f"{message.rstrip('.')}: {advice}" if advice else message


def _explain(error: Exception, *expected: type) -> str:
    for cause in _chain(error):
        if isinstance(cause, MissingConfigException):
            return _missing_config(cause)
        if isinstance(cause, OverrideParseException):
            return f"cannot read {cause.override!a}: write key=value, with text that has other signs in quotes"
        if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
            return f"there is no key {cause.full_key}{nearest_key(cause.full_key, *expected)}"
        if isinstance(cause, InterpolationResolutionError) and "recursi" in str(cause.msg).lower():
            key = cause.full_key or "a key"
            return f"{key} is derived from itself: give it a value or, for wandb.run_name, set run_dir=FOLDER"
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
    group, _, choice = str(name).rpartition("/")
    if choices := options_of(group) if group and ".." not in group else "":
        return f"{group}={choice} does not exist: choose {group} from {choices}"
    return f"there is no config {name}: set --config-name to a file in the --config-path folder, without .yaml"


def _chain(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(text: str) -> str:
    """Escaped, as arguments may have characters that a terminal cannot show."""
    line = (text.strip().splitlines() or ["no reason is known"])[0]
    line = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
    return line if line.isprintable() else ascii(line)[1:-1]
