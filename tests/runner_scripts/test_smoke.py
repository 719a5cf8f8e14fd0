"""The list of the published commands, and their rehearsal."""

import re
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, schema
from reasoning_irl.config.compose import CONFIGS, SCHEMAS
from reasoning_irl.config.compose import to_config as checked

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "runner_scripts/published_commands.txt").read_text()
COMMANDS = [line.split() for line in TEXT.splitlines() if line and not line.startswith("#")]


def published(folder: str, name: str, overrides: list[str]) -> object:
    """The config of a command: read by its full name, since `--config-path` is the script's to understand."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return checked(compose(f"{folder}/{name}", overrides=overrides), *SCHEMAS.values())


def test_there_are_forty_distinct_commands() -> None:
    assert len(COMMANDS) == 40
    assert len({tuple(command) for command in COMMANDS}) == 40


@pytest.mark.parametrize("block", re.split(r"\n\n", TEXT)[1:], ids=lambda block: re.sub(r"\s+", " ", block)[:60])
def test_a_block_is_a_run_and_what_reads_it(block: str) -> None:
    training, *evaluations = [line.split() for line in block.strip().splitlines()]
    assert training[0] != "evaluate.py"
    trained = published(training[1], training[2], training[3:])
    assert isinstance(trained, schema.TrainConfig)
    assert evaluations
    for script, folder, name, *overrides in evaluations:
        assert script == "evaluate.py"
        evaluated = published(folder, name, overrides)
        assert isinstance(evaluated, schema.EvalConfig)
        assert evaluated.run_dir == trained.training.output_dir


def smoke(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "runner_scripts/smoke.sh"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_rehearsal_runs_training_before_what_reads_it_and_empties_its_folder_alone(tmp_path: Path) -> None:
    for name in ("smoke/earlier", "kept"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    result = smoke(tmp_path, "qwen3b.*wgan")
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    said = [re.fullmatch(r"ok +\d+ s  (\w+\.py) qwen3b/.*", line) for line in lines[1:-1]]
    assert [match and match[1] for match in said] == ["sft_train.py", "evaluate.py", "evaluate_irl.py"]
    assert "3 of 3 commands ok" in lines[-1]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["kept", "smoke"]
    assert sorted(path.name for path in (tmp_path / "outputs/smoke").iterdir()) == ["logs", "qwen3b_airl_wgan"]
    assert "adversarial IRL" in (tmp_path / "outputs/smoke/logs/01.log").read_text()


@pytest.mark.slow
def test_a_rehearsal_goes_on_after_a_failure_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")  # which every job refuses
    result = smoke(tmp_path, "qwen3b.*wgan")
    assert result.returncode == 1
    assert result.stdout.count("FAILED") == 3
    assert "01.log: error: WANDB_MODE=nonsense" in result.stdout
    assert "0 of 3 commands ok" in result.stdout


def test_a_pattern_that_no_command_holds_is_refused_and_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "outputs/smoke/earlier").mkdir(parents=True)
    result = smoke(tmp_path, "no such thing")
    assert result.returncode == 2
    assert result.stderr == "error: no published command holds: no such thing\n"
    assert (tmp_path / "outputs/smoke/earlier").is_dir()
