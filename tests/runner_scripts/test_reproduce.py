"""reproduce.sh: what it lists, what it counts as done, and one table rehearsed from end to end."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from reasoning_irl.utils.errors import UserError
from runner_scripts import reproduce
from tests.helpers.commands import with_python

ROOT = Path(__file__).parents[2]
SMOKE = ["scale=smoke"]


@pytest.mark.parametrize(
    ("table", "number"),
    [("main", 12), ("noper", 4), ("wgan", 4), ("granularity", 16), ("discriminator", 4), ("medreason", 12)],
)
def test_table_has_every_run_once_with_a_unique_name(table: str, number: int) -> None:
    commands = [reproduce.commands_of(experiment, 3, []) for experiment in reproduce.table_experiments(table)]
    names = [run[0].run_dir.name for run in commands]
    assert len(set(names)) == len(names) == number
    for run, name in zip(commands, names, strict=True):
        assert name.endswith("_seed3")
        for command in run:
            assert {f"wandb.run_name={name}", "seed=3"} <= set(command.arguments)
        is_airl = "irl_train.py" in run[0].arguments
        assert [command.kind for command in run] == ["train", "evaluate", *["evaluate_irl"] * is_airl]


def test_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="granularity"):
        reproduce.table_experiments("mian")


def test_ablation_is_a_variant_of_the_main_run() -> None:
    (experiment, *_) = reproduce.table_experiments("wgan")
    train, evaluate, _ = reproduce.commands_of(experiment, 0, [])
    assert "variant=wgan" in train.arguments
    assert not [word for word in evaluate.arguments if word.startswith("variant")]
    assert train.run_dir.name == "llama3b_airl_wgan_seed0"


def test_overrides_are_passed_to_the_jobs_that_have_the_key() -> None:
    overrides = ["scale=smoke", "training.max_steps=3", "eval.n_problems=5"]
    train, evaluate, scored = reproduce.commands_of(reproduce.Experiment(reproduce.AIRL[0]), 0, overrides)
    assert [word in train.arguments for word in overrides] == [True, True, False]
    assert [word in evaluate.arguments for word in overrides] == [True, False, True]
    assert [word in scored.arguments for word in overrides] == [True, False, False]


@pytest.mark.parametrize("override", ["seed=1", "wandb.run_name=mine", "training.output_dir=here", "modle.x=1", "wgan"])
def test_overrides_that_would_mix_up_runs_or_have_no_key_are_rejected(override: str) -> None:
    with pytest.raises(UserError, match=override.partition("=")[0]):
        reproduce.check_overrides([override])


class TestProgress:
    """Made-up run folders of an AIRL run with two steps."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.run_dir = Path("outputs/smoke/llama3b_airl_seed0")
        self.run_dir.mkdir(parents=True)

    def commands(self, name: str = "llama3b/3B_1B_config_irl_train", overrides: list[str] = SMOKE) -> list:
        return reproduce.commands_of(reproduce.Experiment(name), 0, overrides)

    def done(self) -> list[bool]:
        return [command.is_done for command in self.commands()]

    def checkpoint(self, step: int, *files: str) -> None:
        folder = self.run_dir / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()

    def test_run_that_never_started_is_not_done(self) -> None:
        assert self.done() == [False] * 3

    def test_run_is_done_at_its_last_step(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(1, "trainer_state.json", "model.safetensors")
        assert self.done() == [False] * 3
        assert "training.resume=true" in self.commands()[0].arguments
        self.checkpoint(2, "trainer_state.json", "model.safetensors")
        assert self.done() == [True, False, False]
        assert "training.resume=true" not in self.commands()[0].arguments

    def test_run_is_resumed_for_more_steps(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(2, "trainer_state.json", "model.safetensors")
        (train, *_) = self.commands(overrides=[*SMOKE, "training.max_steps=4"])
        assert not train.is_done
        assert "training.resume=true" in train.arguments

    def test_half_written_checkpoint_is_not_done(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(2, "trainer_state.json")  # no weights
        assert self.done() == [False] * 3

    def test_run_without_a_checkpoint_is_moved_and_started_again(self) -> None:
        (self.run_dir / "config.yaml").touch()
        (self.run_dir.with_name("llama3b_airl_seed0.1")).mkdir()
        aside, train, *_ = self.commands()
        assert aside.arguments == ["mv", str(self.run_dir), f"{self.run_dir}.2"]
        assert "training.resume=true" not in train.arguments

    def test_evaluations_are_done_if_their_metrics_exist(self) -> None:
        self.checkpoint(2, "trainer_state.json", "model.safetensors")
        metrics = self.run_dir / "metrics.json"
        metrics.write_text(json.dumps({"n_problems": 8}))
        assert self.done() == [True, True, False]
        metrics.write_text(json.dumps({"n_problems": 8, "choice/supervision": "x"}))
        assert self.done() == [True, True, True]


def reproduce_sh(
    folder: Path, *arguments: str, seeds: str = "0", inherited: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    environment = {**inherited, "SEEDS": seeds, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "runner_scripts/reproduce.sh"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_dry_run_lists_every_seed_and_writes_nothing(tmp_path: Path) -> None:
    result = reproduce_sh(tmp_path, "noper", "--dry-run", *SMOKE, seeds="0 7")
    assert result.returncode == 0, result.stderr
    *listed, figure = result.stdout.splitlines()
    assert len(listed) == 2 * 4 * 3
    assert all(line.startswith("to do  python ") for line in listed)
    assert sum("_seed7 " in line for line in listed) == 12
    assert figure.startswith("then   ")
    words = shlex.split(figure)
    assert len([word for word in words if word.startswith("outputs/smoke/")]) == 8
    assert words[-2:] == ["--out", "figures/out/smoke/noper"]
    assert not any(tmp_path.iterdir())


def test_only_selects_runs_and_must_match_one(tmp_path: Path) -> None:
    result = reproduce_sh(tmp_path, "main", "--only", "qwen3b", "--dry-run")
    *listed, _ = result.stdout.splitlines()
    assert len(listed) == 7
    assert all("qwen3b" in line for line in listed)
    none = reproduce_sh(tmp_path, "main", "--only", "qwen4b", "--dry-run")
    assert none.returncode == 2
    assert "error: no run of main has qwen4b" in none.stderr


def test_rehearsed_table_is_not_run_again(tmp_path: Path, warm_python: Path) -> None:
    table = ["wgan", "--only", "qwen3b", *SMOKE]
    first = reproduce_sh(tmp_path, *table, inherited=with_python(warm_python))
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert any((tmp_path / "figures/out/smoke/wgan").iterdir())
    *listed, _ = reproduce_sh(tmp_path, *table, "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["done"] * 3
