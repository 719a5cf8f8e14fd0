"""docs/extending.md is executed: its diffs are applied to a copy of the package, and its examples run there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "extending.md"
pytestmark = pytest.mark.slow


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all five extensions."""
    copy = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    shutil.copytree(ROOT / "configs", copy / "configs")
    for diff in blocks("diff"):
        command = ["git", "apply", "-"]
        done = subprocess.run(command, input=diff, cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{diff}"
    lint = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "src"]
    subprocess.run(lint, cwd=copy, check=True)
    return copy


def test_each_extension_is_in_at_most_two_files() -> None:
    sections = DOCUMENT.read_text().split("\n## ")[1:]
    extensions = [section for section in sections if "```diff" in section]
    assert len(extensions) == 5
    for section in extensions:
        assert len(re.findall(r"^\+\+\+ ", section, re.M)) <= 2, section.splitlines()[0]


def test_examples_run(extended: Path, warm_python: Path) -> None:
    """All in one process, each with its own names."""
    program = "".join(f"exec({example!r}, {{}})\n" for example in blocks("python"))
    environment = {**os.environ, "PYTHONPATH": str(extended / "src")}
    command = [warm_python, "-c", program]
    done = subprocess.run(command, cwd=extended, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_extended_package_has_a_row_for_every_choice(extended: Path, warm_python: Path) -> None:
    """The tests of each table fail if a row is missing; here, all extensions have theirs."""
    check = """
from reasoning_irl.config import schema
from reasoning_irl.data.loading import DATASETS
from reasoning_irl.data.perturbations import PLACES
from reasoning_irl.training.advantages import CALCULATIONS
from reasoning_irl.training.losses import LOSSES
assert set(LOSSES) == set(schema.ClassifierLoss) and "hinge" in LOSSES
assert set(CALCULATIONS) == set(schema.AdvantageCalculation) and "terminal" in CALCULATIONS
assert set(DATASETS) == set(schema.DatasetName) and "proofs" in DATASETS
assert set(PLACES) == set(schema.PerturbationKind) and "negated_answer" in PLACES
"""
    environment = {**os.environ, "PYTHONPATH": str(extended / "src")}
    subprocess.run([warm_python, "-c", check], env=environment, check=True)
