"""reproduce.sh: what it lists, what it takes for done, and one table rehearsed from end to end."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from reasoning_irl.utils.errors import UserError
from runner_scripts import reproduce

ROOT = Path(__file__).parents[2]
SMOKE = ["scale=smoke"]


@pytest.mark.parametrize(
    ("table", "number"),
    [("main", 12), ("noper", 4), ("wgan", 4), ("granularity", 16), ("discriminator", 4), ("medreason", 12)],
)
def test_a_table_has_its_runs_each_once_and_of_one_name(table: str, number: int) -> None:
    commands = [reproduce.commands_of(experiment, 3, []) for experiment in reproduce.table_experiments(table)]
    names = [run[0].run_dir.name for run in commands]
    assert len(set(names)) == len(names) == number
    for run, name in zip(commands, names, strict=True):
        assert name.endswith("_seed3")
        for command in run:
            assert {f"wandb.run_name={name}", "seed=3"} <= set(command.arguments)
        is_airl = "irl_train.py" in run[0].arguments
        assert [command.kind for command in run] == ["train", "evaluate", *["evaluate_irl"] * is_airl]


def test_a_table_that_there_is_not_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match="granularity"):
        reproduce.table_experiments("mian")


def test_an_ablation_is_a_variant_of_the_run_it_is_compared_with() -> None:
    (experiment, *_) = reproduce.table_experiments("wgan")
    train, evaluate, _ = reproduce.commands_of(experiment, 0, [])
    assert "variant=wgan" in train.arguments
    assert not [word for word in evaluate.arguments if word.startswith("variant")]
    assert train.run_dir.name == "llama3b_airl_wgan_seed0"


def test_overrides_go_to_the_jobs_that_have_the_key() -> None:
    overrides = ["scale=smoke", "training.max_steps=3", "eval.n_problems=5"]
    train, evaluate, scored = reproduce.commands_of(reproduce.Experiment(reproduce.AIRL[0]), 0, overrides)
    assert [word in train.arguments for word in overrides] == [True, True, False]
    assert [word in evaluate.arguments for word in overrides] == [True, False, True]
    assert [word in scored.arguments for word in overrides] == [True, False, False]


@pytest.mark.parametrize("override", ["seed=1", "wandb.run_name=mine", "training.output_dir=here", "modle.x=1", "wgan"])
def test_overrides_that_would_mix_up_the_runs_or_mean_nothing_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=override.partition("=")[0]):
        reproduce.check_overrides([override])


class TestWhatIsDone:
    """Made-up run folders of llama3b's AIRL, at two steps."""

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

    def test_a_run_that_never_started_is_to_do(self) -> None:
        assert self.done() == [False] * 3

    def test_a_run_is_done_at_its_last_step_and_not_before(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(1, "trainer_state.json", "discriminator_state.pt")
        assert self.done() == [False] * 3
        assert "training.resume=true" in self.commands()[0].arguments
        self.checkpoint(2, "trainer_state.json", "discriminator_state.pt")
        assert self.done() == [True, False, False]
        assert "training.resume=true" not in self.commands()[0].arguments

    def test_more_steps_than_it_was_run_for_are_a_reason_to_go_on(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(2, "trainer_state.json", "discriminator_state.pt")
        (train, *_) = self.commands(overrides=[*SMOKE, "training.max_steps=4"])
        assert not train.is_done
        assert "training.resume=true" in train.arguments

    def test_a_last_checkpoint_that_is_half_written_is_not_done(self) -> None:
        (self.run_dir / "config.yaml").touch()
        self.checkpoint(2, "trainer_state.json")  # the discriminator's state comes last
        assert self.done() == [False] * 3

    def test_a_run_cut_off_before_its_first_checkpoint_is_set_aside_and_begun_again(self) -> None:
        (self.run_dir / "config.yaml").touch()
        (self.run_dir.with_name("llama3b_airl_seed0.1")).mkdir()
        aside, train, *_ = self.commands()
        assert aside.arguments == ["mv", str(self.run_dir), f"{self.run_dir}.2"]
        assert "training.resume=true" not in train.arguments

    def test_evaluations_are_done_when_their_figures_are_there(self) -> None:
        self.checkpoint(2, "trainer_state.json", "discriminator_state.pt")
        metrics = self.run_dir / "metrics.json"
        metrics.write_text(json.dumps({"n_problems": 8}))
        assert self.done() == [True, True, False]
        metrics.write_text(json.dumps({"n_problems": 8, "choice/supervision": "x"}))
        assert self.done() == [True, True, True]


def reproduce_sh(folder: Path, *arguments: str, seeds: str = "0") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEEDS": seeds, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "runner_scripts/reproduce.sh"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_dry_run_lists_every_seed_and_writes_nothing(tmp_path: Path) -> None:
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


def test_only_some_runs_of_a_table_and_none_is_a_mistake(tmp_path: Path) -> None:
    result = reproduce_sh(tmp_path, "main", "--only", "qwen3b", "--dry-run")
    *listed, _ = result.stdout.splitlines()
    assert len(listed) == 7
    assert all("qwen3b" in line for line in listed)
    none = reproduce_sh(tmp_path, "main", "--only", "qwen4b", "--dry-run")
    assert none.returncode == 2
    assert "error: no run of main holds qwen4b" in none.stderr


@pytest.mark.slow
def test_a_table_is_rehearsed_and_what_is_done_is_left_out_the_next_time(tmp_path: Path) -> None:
    table = ["wgan", "--only", "qwen3b", *SMOKE]
    first = reproduce_sh(tmp_path, *table)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert any((tmp_path / "figures/out/smoke/wgan").iterdir())
    *listed, _ = reproduce_sh(tmp_path, *table, "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["done"] * 3
