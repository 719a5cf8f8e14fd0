"""The pinned versions of the GPU environment, the project and the constraints agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def pins(lines: list[str]) -> dict[str, str]:
    """The pinned versions by normalised package name."""
    exact = (re.fullmatch(r"\s*([\w.-]+)==([\w.]+)\s*(?:#.*)?", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in exact if match}


def test_gpu_environment_has_the_pins_of_the_project_and_of_unsloth() -> None:
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    *conda, last = environment["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    unsloth = pins((ROOT / "requirements-unsloth.txt").read_text().splitlines())
    of_project = pins(project["dependencies"])
    assert len(of_project) == len(project["dependencies"])
    assert environment["name"] == "unsloth_env"
    assert {"python=3.11", "pip"} <= set(conda)
    assert "--editable ." in last["pip"]

    own = pins(last["pip"])
    assert len(own) == len(last["pip"]) - 1, "every package is pinned once"
    assert own.items() >= (of_project | unsloth).items()
    assert set(own) - set(of_project) - set(unsloth) == {"torchvision", "triton", "xformers"}


def test_constraints_contain_the_pins_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [pin for extra in project["optional-dependencies"].values() for pin in extra]
    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert constraints.items() >= pins([*project["dependencies"], *extras]).items()
