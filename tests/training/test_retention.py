"""Which checkpoints are kept and which is the best, and what happens if one cannot be written."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from reasoning_irl.training.retention import Retention, writing
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import PART, chosen_checkpoint, newest_checkpoint
from tests.helpers.airl_runs import Run
from tests.helpers.sft_runs import Train
from tests.helpers.traces import read_rows, write_rows

Save = Callable[[int], None]
KEEP = ["training.save_steps=1", "training.save_total_limit=1"]


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.glob("checkpoint-*"))


@pytest.fixture
def saving(tmp_path: Path) -> Callable[..., Save]:
    """Saves checkpoints of a run whose log has these values of `score`, one per step."""

    def start(retention: Retention, values: list[float | None]) -> Save:
        rows = [{"step": n, "loss": 1.0} | ({} if v is None else {"score": v}) for n, v in enumerate(values, 1)]

        def save(step: int) -> None:
            write_rows(tmp_path / "train_log.jsonl", rows[:step])
            part = tmp_path / PART / f"checkpoint-{step}"
            part.mkdir(parents=True)
            (part / "model.safetensors").write_text("weights")
            retention.save(part, tmp_path / part.name)

        return save

    return start


def test_all_are_kept_without_a_limit(saving: Callable[..., Save], tmp_path: Path) -> None:
    save = saving(Retention(tmp_path, None, None, True), [None] * 12)
    for step in (1, 2, 10, 12):
        save(step)
    assert len(names(tmp_path)) == 4


def test_newest_ones_are_kept(saving: Callable[..., Save], tmp_path: Path) -> None:
    """Trap: checkpoint-10 comes before checkpoint-9 in alphabetical order."""
    save = saving(Retention(tmp_path, 2, None, True), [None] * 12)
    for step in (8, 9, 10, 11):
        save(step)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11"]
    assert not (tmp_path / PART).exists()


@pytest.mark.parametrize(("greater_is_better", "best"), [(True, "checkpoint-6"), (False, "checkpoint-4")])
def test_best_one_is_kept_by_the_mean_since_the_last_checkpoint(
    saving: Callable[..., Save], tmp_path: Path, greater_is_better: bool, best: str
) -> None:
    """The last checkpoint has the smallest value of its own step, the one of step 4 the smallest mean."""
    save = saving(Retention(tmp_path, 1, "score", greater_is_better), [0.7, 0.7, -5.0, 1.0, -3.0, 5.0, 0.1, -1.0])
    (tmp_path / "config.yaml").write_text(
        f"training: {{best_metric: score, greater_is_better: {str(greater_is_better).lower()}}}"
    )
    for step in (2, 4, 6, 8):
        save(step)
        assert chosen_checkpoint(tmp_path, "newest").name == f"checkpoint-{step}"
    assert names(tmp_path) == [best, "checkpoint-8"]
    assert chosen_checkpoint(tmp_path, "best").name == best


def test_of_equal_ones_the_newest_is_the_best(saving: Callable[..., Save], tmp_path: Path) -> None:
    save = saving(Retention(tmp_path, 3, "score", True), [1.0, 1.0, 0.0])
    (tmp_path / "config.yaml").write_text("training: {best_metric: score, greater_is_better: true}")
    for step in (1, 2, 3):
        save(step)
    assert chosen_checkpoint(tmp_path, "best").name == "checkpoint-2"


def test_metric_that_is_never_logged_is_warned_of_with_those_that_are(
    saving: Callable[..., Save], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save = saving(Retention(tmp_path, 1, "scroe", True), [1.0, 2.0])
    save(2)
    assert "best_metric=scroe was not logged in 2 steps" in caplog.text
    assert caplog.text.rstrip().endswith("what was: loss, score")
    assert names(tmp_path) == ["checkpoint-2"]


def test_checkpoint_before_which_the_metric_was_not_logged_is_not_the_best(
    saving: Callable[..., Save], tmp_path: Path
) -> None:
    """Trap: a run that ends between two logged steps, or whose steps were skipped."""
    save = saving(Retention(tmp_path, 1, "score", True), [0.2, 0.5, None, 0.1])
    for step in (1, 2, 3, 4):
        save(step)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]


def test_best_one_by_a_metric_that_is_chosen_later_is_known(saving: Callable[..., Save], tmp_path: Path) -> None:
    """A resumed run may choose another metric: what was saved before is compared by it too."""
    values = [0.9, 0.1, 0.2]
    save = saving(Retention(tmp_path, None, None, True), values)
    save(1)
    save(2)
    saving(Retention(tmp_path, 1, "score", True), values)(3)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-3"]


def test_best_one_of_a_killed_run_is_found(saving: Callable[..., Save], tmp_path: Path) -> None:
    """Trap: the last row of its log is torn."""
    save = saving(Retention(tmp_path, None, None, True), [0.1, 0.9])
    (tmp_path / "config.yaml").write_text("training: {best_metric: score, greater_is_better: false}")
    save(1)
    save(2)
    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"step": 3, "sco')
    assert chosen_checkpoint(tmp_path, "best").name == "checkpoint-1"


def test_damaged_one_is_not_named_at_every_save(
    saving: Callable[..., Save], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save = saving(Retention(tmp_path, 2, "score", True), [0.1, 0.9, 0.2])
    save(1)
    (tmp_path / "checkpoint-1/model.safetensors").unlink()
    save(2)
    save(3)
    assert not caplog.text
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]  # it may be of use to somebody


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("best", "without training.best_metric: use checkpoint=newest"),
        ("checkpoint-7", "it is not there; use newest, best or a checkpoint's name"),
        ("../elsewhere", "it is not there"),
        ("checkpoint-3", "it has no weights"),
    ],
)
def test_checkpoint_that_cannot_be_chosen(tmp_path: Path, choice: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text("training: {max_steps: 3}")  # as of an older version
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(UserError, match=message):
        chosen_checkpoint(tmp_path, choice)


def test_run_keeps_its_newest_and_best_checkpoint(run: Run) -> None:
    words = ["training.max_steps=3", "training.best_metric=policy/entropy", "training.greater_is_better=false"]
    last = run("kept", *KEEP, *words)
    entropies = [row["policy/entropy"] for row in read_rows(last.parent / "train_log.jsonl") if row["step"]]
    best = f"checkpoint-{1 + entropies.index(min(entropies))}"
    assert names(last.parent) == sorted({best, "checkpoint-3"})
    assert chosen_checkpoint(last.parent, "best").name == best


# ---- a disk that takes no more


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """As on a full disk: a file of more than this many bytes cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_checkpoint_that_cannot_be_written_leaves_the_earlier_one(
    train: Train, tmp_path: Path, limit_files: Callable[[int], None]
) -> None:
    words = ["model.policy_lora.rank=0", "model.load_in_4bit=false"]
    first = train(*words, "training.max_steps=2", "training.save_steps=2")
    limit_files(round(1.2 * (first / "model.safetensors").stat().st_size))  # the optimiser has two numbers per weight
    with pytest.raises(UserError, match=r"checkpoint-3 could not be written.*needs about .* free.*from checkpoint-2"):
        train(*words, "training.max_steps=3", "training.save_steps=1", "training.resume=true")
    assert newest_checkpoint(tmp_path / "run") == first
    assert not (tmp_path / "run" / PART / "checkpoint-3").exists()


def test_first_checkpoint_that_cannot_be_written(tmp_path: Path, limit_files: Callable[[int], None]) -> None:
    part = tmp_path / PART / "checkpoint-2"
    part.mkdir(parents=True)
    limit_files(1000)
    with pytest.raises(UserError, match=r"needs more than .* and resume it, which starts it anew"), writing(part):
        save_file({"weight": torch.zeros(1000)}, part / "model.safetensors")
    assert not part.exists()


def test_each_librarys_error_of_a_full_disk_is_known(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Trap: tokenizers raises a plain Exception."""
    part = tmp_path / PART / "checkpoint-2"
    part.mkdir(parents=True)
    (part / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"could not be written .*No space left"), writing(part):
        tokenizer.save_pretrained(part)


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), writing(tmp_path / PART / "checkpoint-2"):
        raise RuntimeError("shapes do not match")
