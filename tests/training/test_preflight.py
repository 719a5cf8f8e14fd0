"""What a run takes, from shapes alone, against what it then takes; and what is said if there is no room."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from reasoning_irl.config.schema import IRLTrainConfig, OfflineTrainConfig
from reasoning_irl.training import jobs
from reasoning_irl.training.preflight import Footprint, check_room, policy_footprint, reward_footprint
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.sizes import GIB, amount, size_of
from tests.helpers.airl_runs import SMALL, Run
from tests.helpers.configs import compose_config, compose_tiny

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    "overrides",
    [[], ["model.policy_lora.rank=16", "model.reward_lora.rank=16"]],
    ids=["weights", "adapters"],
)
def test_checkpoint_is_about_as_large_as_was_said(run: Run, overrides: list[str]) -> None:
    """Wide enough that weights, and not JSON, take the room."""
    wide = ["model.embedded.hidden_size=128", "training.max_steps=1", "training.save_steps=1", *overrides]
    checkpoint = run("sized", *wide)
    config = compose_tiny([*SMALL, *wide])
    source = str(checkpoint.parent / "embedded")
    said = policy_footprint(config, source) + reward_footprint(config, source)
    tensors = sum(size_of(checkpoint / name) for name in (".",)) - sum(
        path.stat().st_size for path in checkpoint.rglob("*.json")
    )
    assert said.saved == pytest.approx(tensors, rel=0.1)


def test_frozen_weights_count_in_the_precision_they_are_loaded_in(embedded_folder: Path) -> None:
    def resident(*words: str) -> int:
        config = compose_tiny(["model.policy_lora.rank=1", "model.dtype=bfloat16", "model.reward_lora.rank=1", *words])
        return policy_footprint(config, str(embedded_folder)).resident

    half, four_bit = resident(), resident("model.load_in_4bit=true")
    n_frozen = (half - four_bit) / (2 - 0.516)
    config: IRLTrainConfig = compose_tiny(["training.beta=0"])
    whole = policy_footprint(config, str(embedded_folder))
    n_all = whole.saved / 12  # weights and two moments in float32
    assert whole.resident == n_all * 16
    assert n_frozen == pytest.approx(n_all, rel=0.01)


def test_frozen_layers_have_no_gradients_and_are_saved(embedded_folder: Path) -> None:
    def footprint(n_frozen: int) -> Footprint:
        words = ["model.reward_lora.rank=0", f"model.reward_frozen_layers={n_frozen}", "dataset.name=arithmetic"]
        words += ["dataset.n_train=40"]
        files = [f"model.reward_name={embedded_folder}", f"dataset.samples_path={embedded_folder}/config.json"]
        config = compose_config("offline_irl_train", OfflineTrainConfig, *words, *files)
        return reward_footprint(config, str(embedded_folder))

    none, one = footprint(0), footprint(1)
    n_frozen = none.n_trained - one.n_trained
    assert n_frozen > 0.3 * none.n_trained  # the embeddings and a layer of two
    assert none.resident - one.resident == 12 * n_frozen
    assert none.saved - one.saved == 8 * n_frozen


def test_model_that_cannot_be_estimated_is_left_to_loading(
    run: Run, embedded_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trap: an estimate that refuses in its own words, or with a traceback, what loading would explain."""
    other = shutil.copytree(embedded_folder, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="cannot load"):
        run("of_images", f"model.reward_name={other}")
    assert "disk:" not in capsys.readouterr().out


def test_run_that_is_refused_can_be_started_with_the_same_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: Usage(1, 0, 0))
        with pytest.raises(UserError, match="a checkpoint takes about"):
            run("again")
    assert run("again").name == "checkpoint-2"


def test_file_system_that_does_not_say_its_size_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    check_room(Footprint(0, 2 * GIB, 0), compose_tiny().training, steps_left=50)


def test_line_is_printed_before_models_load(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loaded(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "load_reward_model", loaded)
    monkeypatch.setattr(jobs, "build_reward_model", loaded)
    monkeypatch.setattr(jobs, "trainable_policy", loaded)
    with pytest.raises(KeyboardInterrupt):
        run("line", "training.max_steps=5", "training.save_steps=2")
    assert "disk: 3 checkpoints of about" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limit", "free", "expected"),
    [
        ("null", 11 * GIB, None),
        ("null", 9 * GIB, "5 checkpoints take about 10.0 GiB, and 9.0 GiB are free"),
        ("1", 9 * GIB, None),
        ("1", 7 * GIB, "4 checkpoints take about 8.0 GiB"),
    ],
)
def test_warns_if_the_checkpoints_do_not_fit(
    limit: str,
    free: int,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 0, free))
    config = compose_tiny([f"training.save_total_limit={limit}", "training.save_steps=10"])
    check_room(Footprint(0, 2 * GIB, 0), config.training, steps_left=50)
    assert (expected in caplog.text) if expected else not caplog.text


def test_refuses_a_disk_that_holds_not_one_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 0, GIB))
    with pytest.raises(UserError, match=r"takes about 2\.0 GiB, and .* has 1\.0 GiB free: use another"):
        check_room(Footprint(0, 2 * GIB, 0), compose_tiny().training, steps_left=50)


def test_refuses_models_that_are_larger_than_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = namedtuple("gpu", "total_memory")(80 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: gpu)
    check_room(Footprint(80 * GIB, 0, 0), compose_tiny().training, steps_left=1)
    with pytest.raises(UserError, match=r"at least 80\.1 GiB, and the GPU has 80\.0 GiB: use adapters"):
        check_room(Footprint(round(80.1 * GIB), 0, 0), compose_tiny().training, steps_left=1)


def test_models_that_several_gpus_share_may_be_larger_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: namedtuple("gpu", "total_memory")(GIB))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_room(Footprint(2 * GIB, 0, 0), compose_tiny().training, steps_left=1)


@pytest.mark.parametrize(("n", "text"), [(0, "0.0 MiB"), (GIB // 2, "512.0 MiB"), (3 * GIB // 2, "1.5 GiB")])
def test_amounts_are_for_people(n: int, text: str) -> None:
    assert amount(n) == text
