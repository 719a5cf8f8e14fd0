"""Run folders: finding checkpoints, and writing without losing what is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import (
    check_run_folder,
    load_run_config,
    newest_checkpoint,
    refuse_to_overwrite,
    write_lines_atomically,
)


def test_newest_checkpoint_has_the_largest_number(tmp_path: Path) -> None:
    """Trap: checkpoint-9 comes after checkpoint-10 in alphabetical order."""
    with pytest.raises(UserError, match="no checkpoint"):
        newest_checkpoint(tmp_path)
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"


def test_new_run_never_overwrites_and_resumed_run_needs_a_checkpoint(tmp_path: Path) -> None:
    check_run_folder(tmp_path, resume=False)
    with pytest.raises(UserError, match="no checkpoint"):
        check_run_folder(tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="already contains a run"):
        check_run_folder(tmp_path, resume=False)
    (tmp_path / "checkpoint-1").mkdir()
    check_run_folder(tmp_path, resume=True)


def test_run_config_must_be_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        load_run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("- a\n- b\n")
    with pytest.raises(UserError, match="not a configuration"):
        load_run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 5\n")
    assert load_run_config(tmp_path).seed == 5


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    refuse_to_overwrite(tmp_path, ["a", "b"])
    (tmp_path / "b").touch()
    with pytest.raises(UserError, match=r"/b already exists"):
        refuse_to_overwrite(tmp_path, ["a", "b"])


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new/file.txt"
    write_lines_atomically(path, ["one\n"])

    def interrupted() -> Iterator[str]:
        yield "two\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines_atomically(path, interrupted())
    assert path.read_text() == "one\n"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
