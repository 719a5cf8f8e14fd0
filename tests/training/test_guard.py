"""The collapse guard: its means and decisions, and each reaction in a run on a tiny model that needs it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reasoning_irl.config.schema import GuardConfig, Reaction
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.training.guard import CollapseGuard
from reasoning_irl.training.whole_checkpoints import WholeCheckpoints
from reasoning_irl.utils.errors import UserError
from tests.helpers.airl_runs import Run, logged, policy_weights, reward_weights, rows_of, same
from tests.helpers.configs import config_error

# No limit but the AUROC's lower one, and no smoothing: each step is judged by its own measures.
ONLY_AUROC = GuardConfig(
    enabled=True,
    n_experts=32,
    smoothing=0.0,
    min_auroc=0.6,
    on_min_auroc=Reaction.skip,
    max_auroc=None,
    on_max_auroc=Reaction.log,
    max_length_correlation=None,
    on_max_length_correlation=Reaction.log,
    min_entropy=None,
    on_min_entropy=Reaction.log,
    min_well_formed=None,
    on_min_well_formed=Reaction.log,
)
ON = ["guard.enabled=true", "guard.smoothing=0", "guard.min_auroc=null", "guard.min_well_formed=null"]


def skips(guard: CollapseGuard) -> str | None:
    return guard.decide().get(Reaction.skip)


def test_mean_of_the_auroc_starts_at_chance_and_runs() -> None:
    guard = CollapseGuard(replace(ONLY_AUROC, smoothing=0.5))
    assert "0.500, below guard.min_auroc=0.6" in (skips(guard) or "")  # nothing is known yet
    guard.update(auroc=0.8)  # mean 0.65
    assert skips(guard) is None
    guard.update(auroc=0.2)  # mean 0.425
    assert "0.425" in (skips(guard) or "")
    guard.update(auroc=0.9)  # mean 0.6625
    assert skips(guard) is None


@pytest.mark.parametrize("limit", [{"on_min_auroc": Reaction.stop}, {"min_entropy": 1.0, "min_auroc": None}])
@pytest.mark.parametrize(("smoothing", "n"), [(0.75, 4), (0.8, 5), (0.9, 10)])
def test_other_means_count_once_they_have_settled(limit: dict[str, Any], smoothing: float, n: int) -> None:
    """Trap: a run that is rolled back or stopped because of its first, noisy step."""
    guard = CollapseGuard(replace(ONLY_AUROC, smoothing=smoothing, on_min_entropy=Reaction.stop, **limit))
    for _ in range(n - 1):
        guard.update(entropy=0.1, auroc=0.1)
        assert guard.decide() == {}
    guard.update(entropy=0.1, auroc=0.1)
    assert guard.decide().keys() == {Reaction.stop}


def test_skipped_step_is_not_throttled_too() -> None:
    """Trap: neither model changes any more, and nothing ever will."""
    limits = {"max_auroc": 0.9, "on_max_auroc": Reaction.throttle, "max_length_correlation": 0.5}
    guard = CollapseGuard(replace(ONLY_AUROC, on_max_length_correlation=Reaction.skip, **limits))  # type: ignore[arg-type]
    guard.update(auroc=0.99, length_correlation=0.8)
    assert guard.decide().keys() == {Reaction.skip}


@pytest.mark.parametrize(
    ("limit", "reaction", "measures", "is_alarm"),
    [
        ({"max_auroc": 0.9}, Reaction.throttle, {"auroc": 0.95}, True),
        ({"max_auroc": 0.9}, Reaction.throttle, {"auroc": 0.9}, False),
        ({"max_length_correlation": 0.8}, Reaction.skip, {"length_correlation": 0.9}, True),
        ({"max_length_correlation": 0.8}, Reaction.skip, {"length_correlation": -0.9}, True),
        ({"max_length_correlation": 0.8}, Reaction.skip, {"length_correlation": -0.7}, False),
        ({"min_entropy": 0.1}, Reaction.roll_back, {"entropy": 0.05}, True),
        ({"min_entropy": 0.1}, Reaction.roll_back, {"entropy": 0.1}, False),
        ({"min_well_formed": 0.5}, Reaction.stop, {"well_formed": 0.4}, True),
        ({"min_well_formed": 0.5}, Reaction.stop, {"well_formed": 0.5}, False),
        ({"min_well_formed": 0.5}, Reaction.stop, {"well_formed": None}, False),
        ({"min_entropy": 0.1}, Reaction.stop, {"entropy": float("nan")}, False),
    ],
)
def test_each_limit_leads_to_its_reaction(
    limit: dict[str, float], reaction: Reaction, measures: dict[str, float | None], is_alarm: bool
) -> None:
    (key,) = limit
    guard = CollapseGuard(replace(ONLY_AUROC, min_auroc=None, **limit, **{f"on_{key}": reaction}))  # type: ignore[arg-type]
    guard.update(**measures)
    decided = guard.decide()
    assert decided.keys() == ({reaction} if is_alarm else set())
    assert all(f"guard.{key}=" in text for text in decided.values())


def test_disabled_guard_does_nothing() -> None:
    assert CollapseGuard(replace(ONLY_AUROC, enabled=False)).decide() == {}


def test_alarm_is_told_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    guard = CollapseGuard(replace(ONLY_AUROC, on_min_auroc=Reaction.log))
    for auroc, n_told in ((0.5, 1), (0.5, 1), (0.7, 1), (0.5, 2)):
        guard.update(auroc=auroc)
        guard.decide()
        assert caplog.text.count("held-out AUROC") == n_told


def test_state_goes_through_json_and_counts_rollbacks(caplog: pytest.LogCaptureFixture) -> None:
    limits = replace(ONLY_AUROC, smoothing=0.7, on_min_auroc=Reaction.roll_back)
    guard, other = CollapseGuard(limits), CollapseGuard(limits)
    for _ in range(3):
        guard.update(auroc=1 / 3, entropy=2.1)
    guard.decide()
    state = json.loads(json.dumps(guard.state_dict()))
    assert not guard.is_good(state)
    assert CollapseGuard(replace(limits, min_auroc=0.3)).is_good(state)  # the limits may have changed
    other.roll_back(state)
    caplog.clear()
    assert (other.means, other.n_rollbacks) == (guard.means, 1)
    other.decide()
    assert not caplog.text  # the alarm is known


@pytest.mark.parametrize(
    ("key", "reaction"),
    [
        ("on_min_auroc", "throttle"),
        ("on_max_auroc", "skip"),
        ("on_max_length_correlation", "throttle"),
        ("on_min_entropy", "skip"),
        ("on_min_well_formed", "throttle"),
    ],
)
def test_reaction_that_would_last_for_ever_is_refused(key: str, reaction: str) -> None:
    assert f"guard.{key}={reaction} would last for ever" in config_error(f"guard.{key}={reaction}")


# ---- in a run


def test_guard_at_chance_changes_no_policy_weight(run: Run) -> None:
    # Momentum and weight decay change weights even if the gradient is zero.
    checkpoint = run("guarded", "guard.enabled=true", "guard.min_auroc=1.0", "training.weight_decay=0.5")
    assert same(policy_weights(checkpoint.parent / "embedded"), policy_weights(checkpoint))
    assert logged(checkpoint, "policy/skipped") == [1.0, 1.0]


def test_throttled_discriminator_is_not_updated_and_the_policy_is(run: Run) -> None:
    words = ["guard.smoothing=0.8", "guard.max_auroc=0.1", "guard.on_max_auroc=throttle", "model.reward_warmup_steps=0"]
    checkpoint = run("throttled", *ON, *words)
    initial = load_reward_model(checkpoint.parent / "reward_model_initial").state_dict()
    assert same(initial, reward_weights(checkpoint))
    assert not same(policy_weights(checkpoint.parent / "embedded"), policy_weights(checkpoint))
    assert logged(checkpoint, "discriminator/throttled") == [1.0, 1.0]
    assert logged(checkpoint, "policy/skipped") == [0.0, 0.0]


def test_reward_that_follows_length_skips_the_next_step(run: Run) -> None:
    words = ["guard.max_length_correlation=0", "guard.on_max_length_correlation=skip"]
    checkpoint = run("length", *ON, *words)
    assert all(logged(checkpoint, "policy/reward_length_correlation"))
    assert logged(checkpoint, "policy/skipped") == [0.0, 1.0]


def test_run_that_the_guard_stops_is_saved_and_can_go_on(run: Run, tmp_path: Path) -> None:
    words = ["guard.min_well_formed=0.5", "training.max_steps=3", "training.save_steps=3"]
    with pytest.raises(UserError, match=r"guard ended the run: share of well-formed samples is 0\.000, below"):
        run("stopped", *ON, *words, "guard.on_min_well_formed=stop")
    folder = tmp_path / "stopped"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    assert same(policy_weights(folder / "embedded"), policy_weights(folder / "checkpoint-1"))
    end = run("stopped", *ON, *words, "guard.on_min_well_formed=log", "training.resume=true")
    assert end.name == "checkpoint-3"
    assert [row["step"] for row in rows_of(folder)][-3:] == [1, 2, 3]


ROLL_BACK = [*ON, "guard.min_entropy=0.5", "guard.on_min_entropy=roll_back", "training.max_steps=5"]
ROLL_BACK += ["training.save_steps=1", "training.lr_scheduler_type=linear", "model.replay_buffer_size=8"]


def collapses(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """Makes the policy certain of everything once it has saved this checkpoint."""
    save = WholeCheckpoints._save_checkpoint

    def spoil(self: WholeCheckpoints, model: torch.nn.Module, trial: Any) -> None:
        save(self, model, trial)
        if f"checkpoint-{self.state.global_step}" == at:
            with torch.no_grad():
                for parameter in model.get_output_embeddings().parameters():  # type: ignore[operator]
                    parameter.mul_(1000)

    monkeypatch.setattr(WholeCheckpoints, "_save_checkpoint", spoil)


def test_rolled_back_run_goes_on_from_the_last_good_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 3 finds no entropy left, so step 4 goes back to checkpoint-2, and step 5 learns again."""
    collapses(monkeypatch, "checkpoint-2")
    last = run("collapsed", *ROLL_BACK)
    good, bad, back = (last.with_name(f"checkpoint-{n}") for n in (2, 3, 4))
    assert not same(policy_weights(good), policy_weights(bad))
    assert same(policy_weights(good), policy_weights(back))
    assert same(reward_weights(good), reward_weights(back))
    assert not same(policy_weights(back), policy_weights(last))
    before, after = (torch.load(c / "optimizer.pt", weights_only=True) for c in (good, back))
    moments = [[s["exp_avg"] for s in state["state"].values()] for state in (before, after)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert after["param_groups"][0]["lr"] < before["param_groups"][0]["lr"]  # the schedule goes forward
    assert logged(last, "policy/skipped") == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert logged(last, "guard/rolled_back_to") == [2.0]
    assert json.loads((last / "guard.json").read_text())["rollbacks"] == 1
    # What is measured on the samples of the policy that was given up is not watched.
    means = [json.loads((checkpoint / "guard.json").read_text())["means"] for checkpoint in (good, back)]
    assert means[0] == means[1]


def test_adapters_are_rolled_back(run: Run) -> None:
    """A limit that is set when the run is resumed, between the entropies of the last checkpoint and an earlier one."""
    words = ["model.policy_lora.rank=4", "model.reward_lora.rank=2", "training.learning_rate=0.01"]
    words += ["training.beta=0.1", "training.save_steps=1"]
    bad = run("adapters", *ON, *words, "training.max_steps=3")
    first, second, last = logged(bad, "policy/entropy")
    limit = (max(first, second) + last) / 2
    good = bad.with_name(f"checkpoint-{2 if second > limit else 1}")
    assert last < limit
    alarm = [f"guard.min_entropy={limit}", "guard.on_min_entropy=roll_back"]
    back = run("adapters", *ON, *words, *alarm, "training.max_steps=4", "training.resume=true")
    for name in ("", "reward_model"):
        before, wrong, after = (load_file(c / name / "adapter_model.safetensors") for c in (good, bad, back))
        assert not same(before, wrong)
        assert same(before, after)


def test_rolled_back_run_that_was_killed_ends_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    collapses(monkeypatch, "checkpoint-2")
    straight = run("straight", *ROLL_BACK)
    policy, reward, rows = policy_weights(straight), reward_weights(straight), rows_of(straight.parent)
    for name in ("checkpoint-4", "checkpoint-5"):
        (straight.with_name(name) / "optimizer.pt").write_bytes(b"torn")
    resumed = run("straight", *ROLL_BACK, "training.resume=true")
    assert same(policy, policy_weights(resumed))
    assert same(reward, reward_weights(resumed))
    assert rows_of(resumed.parent) == rows


def test_run_without_a_good_checkpoint_cannot_be_rolled_back(run: Run) -> None:
    with pytest.raises(UserError, match=r"entropy of the policy is .*, and no checkpoint is of a step before it"):
        run("hopeless", *ON, "guard.min_entropy=99", "guard.on_min_entropy=roll_back", "training.save_steps=1")


def test_run_is_rolled_back_three_times_at_most(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checkpoint-1", "checkpoint-3", "checkpoint-5", "checkpoint-7"):
        collapses(monkeypatch, name)
    with pytest.raises(UserError, match="and it was rolled back 3 times"):
        run("again", *ROLL_BACK, "training.max_steps=12")


def test_run_of_a_version_without_this_guard_is_refused_before_anything_changes(run: Run) -> None:
    checkpoint = run("old", "training.max_steps=2")
    (checkpoint / "guard.json").unlink()
    manifest, config = checkpoint / "checkpoint.json", checkpoint.parent / "config.yaml"
    listed = json.loads(manifest.read_text())
    del listed["files"]["guard.json"]
    manifest.write_text(json.dumps(listed))
    before = config.read_text()
    with pytest.raises(UserError, match=r"of an older version, which cannot be resumed"):
        run("old", "training.max_steps=3", "training.resume=true")
    assert config.read_text() == before
