"""Run folders: finding checkpoints, and writing without losing what is there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import (
    MANIFEST,
    PART,
    check_can_write,
    check_run_folder,
    checkpoint_to_resume,
    find_checkpoint,
    load_run_config,
    newest_checkpoint,
    publish_checkpoint,
    record_resumed,
    record_run,
    refuse_to_overwrite,
    trim_rows,
    write_lines_atomically,
)
from tests.helpers.configs import compose_tiny


def checkpoint(run: Path, step: int, **files: str) -> Path:
    """A published checkpoint with these files."""
    part, target = run / PART / f"checkpoint-{step}", run / f"checkpoint-{step}"
    part.mkdir(parents=True)
    for name, text in ({"adapter_model.safetensors": "weights", "optimizer.pt": "state"} | files).items():
        (part / name).write_text(text)
    publish_checkpoint(part, target)
    return target


def test_newest_checkpoint_has_the_largest_number(tmp_path: Path) -> None:
    """Trap: checkpoint-9 comes after checkpoint-10 in alphabetical order."""
    with pytest.raises(UserError, match="no checkpoint"):
        newest_checkpoint(tmp_path)
    for step in (9, 10):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-99").mkdir()  # somebody's own, or of a run that was killed in an older version
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "optimizer.pt").write_text("st"), "optimizer.pt has 2 of 5 bytes"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: (folder / MANIFEST).write_text('{"fil'), "checkpoint.json is damaged"),
    ],
)
def test_damaged_checkpoint_is_left_out_and_named(
    damage: Callable[[Path], object], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint(tmp_path, 2)
    damage(checkpoint(tmp_path, 4))
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"
    assert named in caplog.text
    assert "checkpoint-4" in caplog.text


def test_checkpoint_without_a_manifest_can_be_evaluated_but_not_resumed(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 2) / MANIFEST).unlink()
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert find_checkpoint(tmp_path, to_resume=True) is None


def test_run_whose_checkpoints_are_all_damaged_does_not_start_again(tmp_path: Path) -> None:
    """Trap: it would begin at step 0, over the checkpoints and logs that are there."""
    assert checkpoint_to_resume(tmp_path) is None
    (checkpoint(tmp_path, 2) / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"model\.checkpoint=FOLDER"):
        checkpoint_to_resume(tmp_path)


def test_published_checkpoint_replaces_an_older_one_of_the_same_step(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, more="old")
    assert (checkpoint(tmp_path, 2, more="new") / "more").read_text() == "new"
    assert find_checkpoint(tmp_path, to_resume=True) == tmp_path / "checkpoint-2"


def test_new_run_never_overwrites_and_resumed_run_needs_a_run(tmp_path: Path) -> None:
    check_run_folder(tmp_path, resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        check_run_folder(tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="already contains a run"):
        check_run_folder(tmp_path, resume=False)
    check_run_folder(tmp_path, resume=True)


def test_resumed_run_keeps_its_settings_and_records_those_that_may_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: another seed or loss on resuming, of which nothing would tell."""
    record_run(compose_tiny(), tmp_path)
    for other in ("seed=1", "model.classifier_loss=wgan", "dataset.n_train=7", "model.neg_perturb_fns=[operator_flip]"):
        key = other.partition("=")[0]
        with pytest.raises(UserError, match=rf"started with {key}=.*a resumed run cannot change it"):
            record_resumed(compose_tiny([other, "training.resume=true"]), tmp_path)
    assert load_run_config(tmp_path).seed == 0
    record_resumed(compose_tiny(["training.max_steps=77", "training.resume=true"]), tmp_path)
    assert "training.max_steps=77 instead of 50" in caplog.text
    assert load_run_config(tmp_path).training.max_steps == 77
    with pytest.raises(UserError, match=r"repeat training\.max_steps=77"):  # forgotten: the config's own
        record_resumed(compose_tiny(["training.resume=true"]), tmp_path)


def test_rows_that_will_be_made_again_and_torn_rows_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [f'{{"step": {step}}}\n' for step in (1, 2, 2, 3, 4)]
    path.write_text("".join(rows) + '{"step": 2, "lo')
    trim_rows(path, 2)
    assert path.read_text() == "".join(rows[:3])
    trim_rows(path, -1)
    assert path.read_text() == ""
    trim_rows(tmp_path / "nothing.jsonl", 2)
    assert not (tmp_path / "nothing.jsonl").exists()


def test_rows_with_any_character_are_kept_and_one_torn_within_a_character_is_removed(tmp_path: Path) -> None:
    """Traps: a line break of Unicode in a text, which cuts its row in two; NaN, as a skipped step logs it."""
    path = tmp_path / "completions.jsonl"
    kept = [json.dumps({"step": 1, "text": "a\u2028b\x85c", "loss": float("nan")}, ensure_ascii=False) + "\n"] * 2
    torn = '{"step": 2, "text": "é'.encode()[:-1]
    path.write_bytes("".join(kept).encode() + torn)
    trim_rows(path, 2)
    assert path.read_bytes().decode() == "".join(kept)


def test_folder_that_cannot_be_written_is_an_error_and_nothing_is_left_in_others(tmp_path: Path) -> None:
    check_can_write(tmp_path / "new" / "run")
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(UserError, match=r"cannot be written .*: choose another output folder"):
            check_can_write(folder)


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
