"""The ablations of the embedded task: what each changes, what counts as done, and what happens after a failure."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, TextIO

import pytest

from reasoning_irl.config.schema import EvalConfig, IRLEvalConfig, IRLTrainConfig, SFTTrainConfig
from runner_scripts import ablations
from tests.helpers.configs import compose_config

LOGITS, LOSSES, GRANULARITIES = ("token", "additive"), ("bce", "pairwise", "wgan"), ("dense", "step", "sparse")
DEFAULT_GRID = ("token", "bce", "dense")
AIRL = {"reward_form": "airl", "dense_gamma": 1.0}
# What each ablation outside the grid changes in the model of the default.
CHANGED: dict[str, dict[str, Any]] = {
    "default": {},
    "token_undiscounted": {"dense_gamma": 1.0},
    "additive_undiscounted": {"dense_gamma": 1.0, "discriminator_logit": "additive"},
    "with_expert": {"add_expert_to_policy_optim": True},
    "token_airl_undiscounted": AIRL,
    "additive_airl_undiscounted": {**AIRL, "discriminator_logit": "additive"},
    "plain_head": {"reward_head": "plain", "reward_lm_coef": 0.0},
    "no_edits": {"num_neg_perturbations_per_expert": 0, "reward_warmup_steps": 0},
    "no_replay": {"replay_buffer_size": 0},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; returns its folder of ablations."""
    monkeypatch.chdir(tmp_path)
    ablations.OUT.mkdir(parents=True)
    return ablations.OUT


def write(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def write_metrics(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(dict.fromkeys(names, 0.5)))


SAMPLED, SCORED = ("n_problems", "pass@1"), ("n_problems", "pass@1", "choice/supervision", "reward/rerank@1|8")


class TestOverrides:
    @pytest.fixture(scope="class")
    def configs(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
        """The checked config of every ablation's training, by name."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("configs"))
            (ablations.folder_of(ablations.SFT, 3) / "warm_start").mkdir(parents=True)
            trainings = {name: ablations.commands_of(name, 3)[0].arguments for name in ablations.ABLATIONS}
            return {
                name: asdict(compose_config("config_irl_train", IRLTrainConfig, *words))
                for name, (_, *words) in trainings.items()
            }

    def test_names_are_the_grid_without_the_default_and_the_others(self) -> None:
        grid = [values for values in product(LOGITS, LOSSES, GRANULARITIES) if values != DEFAULT_GRID]
        names = ["_".join(values) for values in grid] + list(CHANGED)
        assert len(names) == len(set(names)) == 26
        assert sorted(ablations.ABLATIONS) == sorted(names)

    def test_default_changes_nothing_but_where_it_starts(self, configs: dict[str, dict[str, Any]]) -> None:
        assert ablations.ABLATIONS["default"] == []
        own = asdict(compose_config("config_irl_train", IRLTrainConfig, "seed=3"))
        own["warm_start"]["enabled"] = False
        own["model"]["checkpoint"] = "outputs/ablations/sft_seed3/warm_start"
        own["training"]["output_dir"] = "outputs/ablations/default_seed3"
        own["wandb"]["group"] = "default_seed3"
        assert configs["default"] == own

    def test_ablations_change_only_what_their_names_say(self, configs: dict[str, dict[str, Any]]) -> None:
        default = configs["default"]["model"]
        keys = ("discriminator_logit", "classifier_loss", "reward_granularity")
        assert tuple(default[key] for key in keys) == DEFAULT_GRID
        for name, config in configs.items():
            changed = CHANGED.get(name) or dict(zip(keys, name.split("_"), strict=False) if name != "default" else {})
            assert config["model"] == {**default, **changed}, name
            other_keys = {key: value for key, value in config.items() if key != "model"}
            output_dir = f"outputs/ablations/{name}_seed3"
            expected = {
                **configs["default"],
                "training": {**configs["default"]["training"], "output_dir": output_dir},
                "wandb": {**configs["default"]["wandb"], "group": f"{name}_seed3"},
            }
            assert other_keys == {key: value for key, value in expected.items() if key != "model"}, name

    def test_no_two_ablations_are_the_same(self, configs: dict[str, dict[str, Any]]) -> None:
        models = [json.dumps(config["model"], default=str) for config in configs.values()]
        assert len(set(models)) == len(models)

    def test_evaluations_score_the_run_with_the_sft_of_its_seed(self) -> None:
        Path("outputs/ablations/sft_seed4").mkdir(parents=True)  # which is trained first
        _, evaluate, scored = ablations.commands_of("plain_head", 4)
        assert compose_config("config_eval", EvalConfig, *evaluate.arguments[1:]).run_dir == str(evaluate.run_dir)
        config = compose_config("config_irl_eval", IRLEvalConfig, *scored.arguments[1:])
        assert config.run_dir == "outputs/ablations/plain_head_seed4"
        assert config.model.sft_path == "outputs/ablations/sft_seed4"

    def test_sft_starts_from_the_warm_start_that_the_ablations_start_from(self) -> None:
        script, *words = ablations.sft_command(4).arguments
        config = compose_config("config_sft_train", SFTTrainConfig, *words)
        assert script == "sft_train.py"
        assert config.warm_start.enabled
        assert config.training.max_steps == config.training.save_steps == 160
        default = compose_config("config_irl_train", IRLTrainConfig, "seed=4")
        assert (config.seed, config.dataset, config.warm_start) == (4, default.dataset, default.warm_start)
        assert config.model.embedded == default.model.embedded


class TestProgress:
    """Made-up run folders of the default with seed 0."""

    def done(self) -> list[bool]:
        return [command.is_done for command in ablations.commands_of("default", 0)]

    @pytest.fixture
    def folder(self) -> Path:
        return ablations.folder_of("default", 0)

    def test_commands_are_done_in_order(self, folder: Path) -> None:
        assert self.done() == [False, False, False]
        write(folder, "config.yaml", "checkpoint-50/trainer_state.json")
        assert self.done() == [False, False, False]  # no weights
        write(folder, "checkpoint-50/model.safetensors")
        assert self.done() == [True, False, False]
        write_metrics(folder, *SAMPLED)
        assert self.done() == [True, False, False]  # as an older version leaves them
        write(folder, "traces.jsonl")
        assert self.done() == [True, True, False]
        write_metrics(folder, *SCORED)
        assert self.done() == [True, True, True]

    def test_checkpoint_of_an_earlier_step_is_not_the_end(self, folder: Path) -> None:
        write(folder, "checkpoint-25/model.safetensors")
        assert self.done() == [False, False, False]

    def test_evaluated_run_needs_no_checkpoint(self, folder: Path) -> None:
        write(folder, "config.yaml", "traces.jsonl")
        write_metrics(folder, *SCORED)
        assert self.done() == [True, True, True]

    def test_sft_is_done_at_its_last_step(self) -> None:
        folder = ablations.folder_of(ablations.SFT, 0)
        write(folder, "checkpoint-100/model.safetensors")
        assert not ablations.sft_command(0).is_done
        write(folder, "checkpoint-160/model.safetensors")
        assert ablations.sft_command(0).is_done

    @pytest.mark.parametrize("left", [[], ["train_log.jsonl"], ["checkpoint-50/optimizer.pt"]])
    def test_killed_training_is_removed(self, folder: Path, left: list[str]) -> None:
        write(folder, "config.yaml", *left)
        ablations.remove_unfinished(ablations.commands_of("default", 0)[0])
        assert not folder.exists()

    @pytest.mark.parametrize(
        "files",
        [
            ["config.yaml", "checkpoint-25/model.safetensors"],
            ["config.yaml", "metrics.json"],
            ["config.yaml", "traces.jsonl"],
            ["notes.txt"],
        ],
    )
    def test_checkpoints_results_and_other_folders_are_kept(self, folder: Path, files: list[str]) -> None:
        training = ablations.commands_of("default", 0)[0]
        write(folder, *files)
        ablations.remove_unfinished(training)
        assert all((folder / file).is_file() for file in files)

    def test_sft_with_a_checkpoint_is_kept(self) -> None:
        folder = ablations.folder_of(ablations.SFT, 0)
        write(folder, "config.yaml", "checkpoint-160/model.safetensors")
        ablations.remove_unfinished(ablations.sft_command(0))
        assert folder.exists()


class FakeJobs:
    """Stands in for `run`: writes the files that a job is known by, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  # (run folder, script)
        self.failing: set[tuple[str, str]] = set()

    def __call__(self, arguments: Sequence[str], log: TextIO) -> bool:
        words = dict(word.split("=", 1) for word in arguments[1:])
        folder = Path(words.get("training.output_dir") or words["run_dir"])
        call = (folder.name, arguments[0].removesuffix(".py"))
        self.calls.append(call)
        print("a line of the job", file=log)
        if call in self.failing:
            return False
        match call[1]:
            case "sft_train":
                write(folder, "config.yaml", "checkpoint-160/model.safetensors")
            case "irl_train":
                assert not folder.exists(), "a training never starts in an existing folder"
                write(folder, "config.yaml", "checkpoint-50/model.safetensors")
            case "evaluate":
                write(folder, "traces.jsonl")
                write_metrics(folder, *SAMPLED)
            case "evaluate_irl":
                write_metrics(folder, *SCORED)
        return True


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    fake = FakeJobs()
    monkeypatch.setattr(ablations, "run", fake)
    return fake


TWO = ["--only", "^default|plain_head"]
JOBS = ("irl_train", "evaluate", "evaluate_irl")


def test_every_seed_is_started_once_and_a_second_call_runs_nothing(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert ablations.main(["--seeds", "0", "7", *TWO]) == 0
    expected = []
    for seed in (0, 7):
        expected.append((f"sft_seed{seed}", "sft_train"))
        expected += [(f"{name}_seed{seed}", job) for name in ("default", "plain_head") for job in JOBS]
    assert jobs.calls == expected
    lines, table = capsys.readouterr().out.split("\n\n", 1)
    assert [line.split()[::2] for line in lines.splitlines()] == [["ok", "s", f"{job}.py"] for _, job in expected]
    assert "| plain_head | 2 | 0.500 (+0.000 [+0.000, +0.000])" in table
    log = (here / "default_seed0.log").read_text().splitlines()
    assert len(log) == 6
    assert log[0].startswith("== python irl_train.py seed=0 ")
    assert log[1] == "a line of the job"
    jobs.calls.clear()
    assert ablations.main(["--seeds", "0", "7", *TWO]) == 0
    assert jobs.calls == []
    assert "done" in capsys.readouterr().out
    assert (here / "default_seed0.log").read_text().splitlines() == log


def test_killed_run_goes_on_where_it_was(jobs: FakeJobs, here: Path) -> None:
    write(here / "sft_seed0", "config.yaml", "checkpoint-160/model.safetensors")
    write(here / "default_seed0", "config.yaml", "checkpoint-50/model.safetensors", "traces.partial.jsonl")
    write(here / "plain_head_seed0", "config.yaml", "train_log.jsonl")
    assert ablations.main(["--seeds", "0", *TWO]) == 0
    assert jobs.calls == [("default_seed0", job) for job in JOBS[1:]] + [("plain_head_seed0", job) for job in JOBS]
    assert (here / "default_seed0/traces.partial.jsonl").exists()
    assert not (here / "plain_head_seed0/train_log.jsonl").exists()


def test_finished_ablations_do_not_make_their_start_again(jobs: FakeJobs, here: Path) -> None:
    for name in ("default", "plain_head"):
        write_metrics(here / f"{name}_seed0", *SCORED)
    assert ablations.main(["--seeds", "0", *TWO]) == 0
    assert jobs.calls == []


def test_failure_stops_only_its_own_run(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.failing = {("default_seed0", "irl_train"), ("plain_head_seed0", "evaluate")}
    assert ablations.main(["--seeds", "0", "1", *TWO]) == 1
    of_first = [call for call in jobs.calls if call[0].endswith("_seed0")]
    assert of_first[1:] == [
        ("default_seed0", "irl_train"),
        ("plain_head_seed0", JOBS[0]),
        ("plain_head_seed0", JOBS[1]),
    ]
    assert len(jobs.calls) == 4 + 7
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert ["default_seed0.log" in failed[0], "plain_head_seed0.log" in failed[1], len(failed)] == [True, True, 2]
    assert out.count("FAILED") == 2
    assert "| default | 1 |" in out  # the table is of the seeds that there are


def test_seed_without_a_start_is_left_out(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.failing = {("sft_seed0", "sft_train")}
    assert ablations.main(["--seeds", "0", "1", *TWO]) == 1
    assert [folder for folder, _ in jobs.calls if folder.endswith("_seed0")] == ["sft_seed0"]
    assert len(jobs.calls) == 1 + 7
    assert "no ablation of seed 0 was run" in capsys.readouterr().out


def test_nothing_evaluated_is_said_in_one_line(jobs: FakeJobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.failing = {("sft_seed0", "sft_train")}
    assert ablations.main(["--seeds", "0", *TWO]) == 1
    assert "has no evaluated run" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["defualt", "("])
def test_pattern_without_a_match_runs_nothing(jobs: FakeJobs, capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    with pytest.raises(SystemExit) as ended:
        ablations.main(["--seeds", "0", "--only", pattern])
    assert ended.value.code == 2
    assert pattern in capsys.readouterr().err
    assert jobs.calls == []


def test_output_of_a_command_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import os, sys", "print(sys.argv[1:], *map(os.environ.get, ['OMP_NUM_THREADS', 'HF_HUB_OFFLINE']))"]
    (tmp_path / "job.py").write_text("\n".join([*lines, "print('to stderr', file=sys.stderr)", "sys.exit(3)"]))
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with ablations.locked(tmp_path / "job.log") as log:
        assert not ablations.run(["job.py", "a=1"], log)
    assert set((tmp_path / "job.log").read_text().splitlines()) == {"['a=1'] 5 1", "to stderr"}


def test_command_that_outlives_the_script_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file = tmp_path / "run.log"
    with log_file.open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        command = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"], stdout=log)
    with ablations.locked(log_file):
        assert command.wait(timeout=0.5) == 0  # it has ended, or is about to
    assert "waiting for the process" in capsys.readouterr().out
