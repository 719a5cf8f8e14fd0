"""What is skipped and kept because it is not finite: gradients in the SFT job, rewards and updates in AIRL's."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from reasoning_irl.models.loading import load_policy
from reasoning_irl.training.non_finite import MOST_KEPT, NonFiniteSteps
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import newest_checkpoint
from tests.helpers.airl_runs import Run, logged, policy_weights, same
from tests.helpers.sft_runs import Train, at_step


def spoil(model: torch.nn.Module) -> None:
    next(p for p in model.parameters() if p.grad is not None).grad[:] = float("nan")


def kept(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "non_finite").iterdir())


def test_gradient_that_is_not_finite_changes_nothing_and_its_batch_is_kept(
    train: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_step(monkeypatch, {2}, spoil)
    last = train("training.max_steps=3", "training.save_steps=1", "training.learning_rate=0.01")
    assert "step 2: the gradient is not finite" in caplog.text
    one, two, three = (load_policy(str(last.with_name(f"checkpoint-{n}"))).state_dict() for n in (1, 2, 3))
    assert same(one, two)
    assert not same(one, three)
    assert kept(last.parent) == ["step-2-gradient-1.safetensors"]
    with safe_open(last.parent / "non_finite" / "step-2-gradient-1.safetensors", "pt") as file:
        assert file.metadata() == {"reason": "the gradient is not finite, so no weight is changed"}
        assert file.get_tensor("0.input_ids").shape == file.get_tensor("0.labels").shape


def test_run_whose_gradients_stay_non_finite_ends_and_keeps_its_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, set(range(3, 99)), spoil)
    with pytest.raises(UserError, match=r"5 in a row, up to step 7.*training\.learning_rate"):
        train("training.max_steps=20")
    weights = load_policy(str(newest_checkpoint(tmp_path / "run"))).state_dict()
    assert all(value.isfinite().all() for value in weights.values())


def test_micro_batches_are_kept_apart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: the library gives all of a step the same tensor of counts, and one file cannot hold it twice."""
    at_step(monkeypatch, {1}, spoil)
    words = ["training.gradient_accumulation_steps=2", "training.per_device_train_batch_size=4"]
    checkpoint = run("halves", *words, "training.max_steps=2")
    (name,) = kept(checkpoint.parent)
    with safe_open(checkpoint.parent / "non_finite" / name, "pt") as file:
        assert {key.partition(".")[0] for key in file.keys()} == {"0", "1"}  # noqa: SIM118 (not a dictionary)
    # JSON has no NaN.
    assert "NaN" not in (checkpoint.parent / "train_log.jsonl").read_text()


def test_rewards_that_are_not_finite_skip_the_policy_step(run: Run) -> None:
    """Trap: NaN advantages, and a log that JSON and W&B cannot read."""
    checkpoint = run("infinite", "model.disc_temperature=1e-45", "model.clip_reward_model=false", "training.beta=0")
    assert same(policy_weights(checkpoint.parent / "embedded"), policy_weights(checkpoint))
    assert logged(checkpoint, "policy/skipped") == [1.0, 1.0]
    assert logged(checkpoint, "policy/reward_mean") == [0.0, 0.0]
    assert logged(checkpoint, "discriminator/heldout_auroc") == [0.5, 0.5]
    assert kept(checkpoint.parent) == ["step-1-reward-1.safetensors", "step-2-reward-1.safetensors"]
    with safe_open(checkpoint.parent / "non_finite" / "step-1-reward-1.safetensors", "pt") as file:
        assert not file.get_tensor("0.rewards").isfinite().all()


def test_discriminator_that_stays_non_finite_ends_the_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"5 in a row, up to step 1: the discriminator's.*model\.reward_learning_rate"):
        run("exploded", "model.reward_learning_rate=1e30", "model.reward_warmup_steps=9", "model.reward_warmup_ratio=0")
    assert len(kept(tmp_path / "exploded")) == 5


def test_count_starts_anew_after_a_step_that_went_well(tmp_path: Path) -> None:
    steps = NonFiniteSteps(tmp_path)
    for step in range(12):
        if step % 4 == 3:
            steps.went_well("gradient")
        else:
            steps.skipped("gradient", step, "it is not finite", [{"ids": torch.ones(1)}])


def test_no_batch_takes_the_place_of_another(tmp_path: Path) -> None:
    """Trap: of several updates in a step, the first and the last are not finite."""
    steps = NonFiniteSteps(tmp_path)
    for is_finite in (False, True, False):
        if is_finite:
            steps.went_well("discriminator")
        else:
            steps.skipped("discriminator", 7, "it is not finite", [{"ids": torch.ones(1)}])
    assert len(kept(tmp_path)) == 2


def test_batch_that_cannot_be_kept_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "non_finite").write_text("a file")
    NonFiniteSteps(tmp_path).skipped("reward", 1, "it is not finite", [{"ids": torch.ones(1)}])
    assert "the batch cannot be kept" in caplog.text


def test_batches_do_not_fill_the_disk(tmp_path: Path) -> None:
    steps = NonFiniteSteps(tmp_path)
    for step in range(2 * MOST_KEPT):
        steps.skipped("reward", step, "it is not finite", [{"ids": torch.ones(1)}])
        steps.went_well("reward")
    assert len(kept(tmp_path)) == MOST_KEPT
