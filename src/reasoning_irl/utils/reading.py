"""Reads the JSON and YAML of people and other programs: any text is either a value, or one line that says why not.

Values that could not be written again are refused here, so that no job fails at its end: numbers that are not finite,
and halves of surrogate pairs. So are texts that two programs may read differently: an object that names a key twice.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.utils.errors import DataError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_YAMLLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is of LibYAML, if it was there


def parse_json(data: bytes, what: str) -> Any:
    """The value of a JSON text. Raises DataError, which begins with `what`, if it is none."""
    try:
        text = data.decode("utf-8-sig")
        value = _DECODER.decode(text)
    except UnicodeDecodeError:
        raise DataError(f"{what} is not UTF-8 text; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError(f"{what} is not valid JSON ({error.msg} at {place}); mend or remove it") from None
    except RecursionError:
        raise DataError(f"{what} is nested too deeply; write flat values") from None
    except DataError as error:
        raise DataError(f"{what} {error}") from None
    except ValueError:  # Python converts no longer ones
        raise DataError(f"{what} contains a whole number of thousands of digits; write it as text") from None
    if _SURROGATE.search(text) and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise DataError(
            f"{what} contains half of a surrogate pair (\\ud800 to \\udfff), which is no character; remove it"
        )
    return value


def read_json(path: Path, remedy: str) -> Any:
    """The value in a JSON file. Raises DataError, which ends with the `remedy`, if there is none."""
    try:
        return parse_json(path.read_bytes(), str(path))
    except DataError as error:
        raise DataError(f"{error}: {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {remedy}") from None


def read_yaml(path: Path, remedy: str) -> DictConfig:
    """The keys and values in a YAML file, none of which refers to another part of it or to the environment.

    By references, a short text can be endless, and what it says depends on who reads it. Raises DataError, which ends
    with the `remedy`, for such a file and for one without keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_YAMLLoader)):
            raise DataError(f"{path} refers to parts of itself by *NAME: {remedy}")
        config = OmegaConf.create(text)
        values = OmegaConf.to_container(config)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise DataError(f"{path} is not valid YAML{place}: {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except (OmegaConfBaseException, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise DataError(f"{path} is not a configuration ({type(error).__name__}): {remedy}") from None
    if not isinstance(config, DictConfig) or not config or not all(isinstance(key, str) for key in config):
        raise DataError(f"{path} is not a configuration, which has keys and values: {remedy}")
    if _refers(values):
        raise DataError(f"{path} contains ${{...}}, where only plain values may be: {remedy}")
    return config


def _refers(value: Any) -> bool:
    """Whether a value would be read as an interpolation."""
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    if isinstance(value, list):
        return any(map(_refers, value))
    return isinstance(value, str) and "${" in value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"names the key '{twice}' twice; keep one of them")
    return values


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise DataError(f"contains the number {digits[:20]}, which is too large; write null instead")
    return number


def _refuse_constant(name: str) -> None:
    raise DataError(f"contains {name}, which is not valid JSON; write null instead")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse_constant)
