"""The wheel: it has what its programs read, and they work without the repository."""

import contextlib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from reasoning_irl import __version__
from reasoning_irl.config.compose import CONFIGS
from tests.helpers.commands import REPOSITORY, run_python

EXPERIMENT = ("--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel, as pip would put them into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    with contextlib.chdir(REPOSITORY):
        wheel = build_wheel(str(folder))
    with zipfile.ZipFile(folder / wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def test_wheel_has_every_config_and_other_file_that_the_package_reads(installed: Path) -> None:
    package = installed / "reasoning_irl"
    assert CONFIGS == REPOSITORY / "configs"
    assert files(package / "configs", "*.yaml") == files(CONFIGS, "*.yaml")
    source = REPOSITORY / "src" / "reasoning_irl"
    for pattern in ("*.py", "*.html", "py.typed"):
        assert files(package, pattern) == files(source, pattern) != {}
    assert {path.name for path in installed.iterdir()} == {"reasoning_irl", f"reasoning_irl-{__version__}.dist-info"}


def test_metadata_has_the_version_and_licence(installed: Path) -> None:
    info = installed / f"reasoning_irl-{__version__}.dist-info"
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text()
    assert "reasoning-irl = reasoning_irl.cli.main:main" in (info / "entry_points.txt").read_text()


def test_installed_programs_find_the_configs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    code = "from reasoning_irl.cli.main import main; from reasoning_irl.config import compose; print(compose.CONFIGS)"
    arguments = ("train", *EXPERIMENT, "variant=noper", "--cfg=job")
    done = run_python("-c", f"{code}; main()", *arguments, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.stdout.startswith(f"{installed / 'reasoning_irl' / 'configs'}\nalgorithm: airl\n"), done.stderr


@pytest.mark.long
def test_installed_program_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    arguments = ("-m", "reasoning_irl.cli.main", "train", *EXPERIMENT, "scale=smoke")
    done = run_python(*arguments, cwd=tmp_path, PYTHONPATH=str(installed), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("next: reasoning-irl evaluate run_dir=outputs/smoke/llama3b_airl\n")
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
