"""W&B without a network: the content of an offline run, login checks, and the local files that replace W&B."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from reasoning_irl.config.schema import EvalConfig, IRLTrainConfig, WandbMode
from reasoning_irl.tracking import check_login, log_evaluation, log_histogram, wandb_mode
from reasoning_irl.training import jobs
from reasoning_irl.training.run import run_training
from reasoning_irl.utils.errors import UserError
from tests.helpers.configs import compose_any, compose_config
from tests.helpers.traces import read_rows

SMALL = [
    "warm_start.enabled=false",
    "training.max_steps=2",
    "training.save_steps=2",
    "training.per_device_train_batch_size=4",
    "training.num_generations=2",
    "training.max_completion_length=16",
    "training.completions_steps=2",
    "training.n_completions=3",
    "model.reward_warmup_steps=2",
    "model.reward_batch_size=2",
    "model.reward_policy_batch_size=4",
    "guard.enabled=false",
]
SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 3, "HF_TOKEN": "hf_" + "aBcDeFgH" * 4}
NAMED = ["wandb.mode=offline", "wandb.run_name=mine", "wandb.group=ours", "wandb.tags=[a,b]", "wandb.project=p"]
Tiny = Callable[..., IRLTrainConfig]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def read_run(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The records of the only offline run in a folder; W&B's own process writes the last of them a little later."""
    for _ in range(200):
        records = parse(folder)
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    pytest.fail("the run file has no end")


def parse(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The records in a run file so far.

    After a header of 7 bytes, the file has LevelDB's log format: blocks of 32 KiB with pieces of records, each with a
    checksum (4 bytes), a length (2) and a type (1: whole, 2: first, 3: middle, 4: last).
    """
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, records, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left_in_block = 32768 - at % 32768
        if left_in_block < 7:  # too short for a piece, so it is padding
            at += left_in_block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def items(updates: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}


def artifacts_of(records: list[wandb_internal_pb2.Record]) -> list[Any]:
    return [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")] + [
        record.artifact for record in records if record.HasField("artifact")
    ]


def test_offline_run_has_name_config_curves_and_completions_and_no_key(
    tiny_config: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    named = [*NAMED, "wandb.log_reward_model=true"]
    jobs.train_airl(tiny_config([*SMALL, *named, f"training.output_dir={tmp_path / 'run'}"]))
    records = read_run(tmp_path / "run")
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.display_name, run.run_group, run.project, list(run.tags)) == ("mine", "ours", "p", ["a", "b"])
    assert run.job_type == "train"
    config = items(run.config.update)
    assert config["model"]["classifier_loss"] == "bce"
    assert config["training"]["max_steps"] == 2
    history = [items(record.history.item) for record in records if record.HasField("history")]
    keys = {key for row in history for key in row}
    assert [row["warm_up/update"] for row in history if "warm_up/loss" in row] == [1, 2]
    assert {"train/discriminator/learning_rate", "train/tokens_per_second"} <= keys
    assert any(key.startswith("profiling/Time taken: AIRLTrainer._update_discriminator") for key in keys)
    assert {"train/discriminator/heldout_auroc", "train/discriminator/accuracy_expert", "train/policy/entropy"} <= keys
    (table,) = [row for row in history if any(key.startswith("completions") for key in row)]
    assert table["completions.nrows"] == 3, sorted(table)
    assert table["completions._type"] == "table-file"
    (histogram,) = [row for row in history if any(key.startswith("policy/token_rewards") for key in row)]
    assert sum(histogram["policy/token_rewards.values"]) > 0, sorted(histogram)
    (reward,) = [artifact for artifact in artifacts_of(records) if artifact.type == "reward_model"]
    assert "config.json" in {entry.path for entry in reward.manifest.contents}
    shown = "".join(capfd.readouterr())
    written = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for secret in SECRETS.values():
        assert [path for path, data in written.items() if secret.encode() in data] == []
        assert secret not in shown


def test_without_wandb_local_files_have_curves_and_completions(tiny_config: Tiny, tmp_path: Path) -> None:
    jobs.train_airl(tiny_config([*SMALL, f"training.output_dir={tmp_path / 'run'}"]))
    assert not list(tmp_path.glob("**/wandb"))
    rows = read_rows(tmp_path / "run" / "completions.jsonl")
    assert [row["step"] for row in rows] == [2, 2, 2]
    for row in rows:
        assert "".join(row["tokens"]) == row["completion"]
        assert len(row["tokens"]) == len(row["token_rewards"]) == len(row["advantages"])
        assert row["correct"] is False  # an untrained policy
        assert row["reward"] == pytest.approx(sum(row["token_rewards"]) / len(row["token_rewards"]), abs=1e-3)
    log = read_rows(tmp_path / "run" / "train_log.jsonl")
    assert [row["step"] for row in log] == [0, 0, 1, 2]
    assert "warm_up/loss" in log[1]
    assert "discriminator/heldout_auroc" in log[2]
    assert log[3]["tokens_per_second"] > 0


def test_run_and_its_evaluations_share_a_group() -> None:
    """The evaluations of a run, in whichever folder, and the run itself."""
    run = ["run_dir=outputs/one", "wandb.run_name=x"]
    configs = [
        compose_any("config_irl_train", "training.output_dir=outputs/one", "wandb.run_prefix=embedded"),
        compose_any("config_eval", *run, "output_dir=outputs/other"),
        compose_any("config_irl_eval", *run, "output_dir=outputs/another"),
    ]
    assert {config.wandb.group for config in configs} == {"one"}
    assert configs[0].wandb.tags == ["embedded"]


def test_online_mode_without_a_login_is_an_error_before_anything_is_written(tiny_config: Tiny, tmp_path: Path) -> None:
    config = tiny_config([*SMALL, "wandb.mode=online", f"training.output_dir={tmp_path / 'run'}"])
    with pytest.raises(UserError, match="wandb login"):
        run_training(config)
    assert not (tmp_path / "run").exists()


def test_login_is_found_in_the_environment_and_in_netrc(
    tiny_config: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(["wandb.mode=online"]).wandb
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    check_login(config)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(UserError, match=r"wandb\.example\.org"):
        check_login(config)
    monkeypatch.setenv("WANDB_API_KEY", "key")
    check_login(config)


def test_mode_of_the_environment_takes_precedence(tiny_config: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(["wandb.mode=online"]).wandb
    assert wandb_mode(config) == WandbMode.online
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(config) == WandbMode.offline
    check_login(config)
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="WANDB_MODE=sometimes"):
        wandb_mode(config)


def test_evaluation_writes_its_metrics_to_the_summary_and_names_the_run(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/wandb_run_id.txt").write_text("0a1b2c3d")
    offline = ["wandb.mode=offline", f"run_dir={tmp_path}/own", f"output_dir={tmp_path}"]
    config, metrics = compose_config("config_eval", EvalConfig, *offline), {"pass@1": 0.25, "auroc": None}
    (tmp_path / "report.html").write_text("<p>")
    log_evaluation(config, "evaluate", metrics, tmp_path / "report.html")
    records = read_run(tmp_path)
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.run_group == "own"
    settings = [items(run.config.update), *(items(r.config.update) for r in records if r.HasField("config"))]
    assert [found["training_run"] for found in settings if "training_run" in found] == ["0a1b2c3d"]
    summaries = [record.summary for record in records if record.HasField("summary")]
    merged = {key: value for summary in summaries for key, value in items(summary.update).items()}
    assert merged["pass@1"] == 0.25
    assert "auroc" not in merged
    (report,) = artifacts_of(records)
    assert (report.type, [entry.path for entry in report.manifest.contents]) == ("report", ["report.html"])


def test_logged_samples_say_whether_they_are_right_by_their_own_record(tiny_config: Tiny, tmp_path: Path) -> None:
    """Here the third and the last are experts, which follow the two samples of their prompt."""
    more = ["model.add_expert_to_policy_optim=true", "training.n_completions=6", "training.max_completion_length=60"]
    jobs.train_airl(tiny_config([*SMALL, *more, f"training.output_dir={tmp_path / 'run'}"]))
    rows = read_rows(tmp_path / "run" / "completions.jsonl")
    assert [row["correct"] for row in rows] == [False, False, True, False, False, True]
    assert rows[2]["prompt"] != rows[5]["prompt"]


def test_histogram_leaves_out_what_is_not_finite_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trap: one NaN among the rewards of a step, on which NumPy's histogram raises, ends hours of training."""
    with wandb.init(mode="offline", dir=tmp_path):
        log_histogram("rewards", [1.0, float("nan"), 2.0, float("inf")], 3)
        log_histogram("rewards", [float("nan")], 4)
    assert [record.getMessage() for record in caplog.records if "finite" in record.getMessage()] == [
        "step 3: 2 values of rewards are not finite",
        "step 4: 1 values of rewards are not finite",
    ]
    (histogram,) = [
        row for record in read_run(tmp_path) if record.HasField("history") for row in [items(record.history.item)]
    ]
    assert sum(histogram["rewards.values"]) == 2
