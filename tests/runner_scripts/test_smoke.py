"""The list of published commands, and their rehearsal."""

import re
import subprocess
from pathlib import Path

import pytest

from reasoning_irl.config import schema
from tests.helpers.commands import with_python
from tests.helpers.configs import compose_any

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "runner_scripts/published_commands.txt").read_text()
COMMANDS = [line.split() for line in TEXT.splitlines() if line and not line.startswith("#")]


def test_list_has_forty_distinct_commands() -> None:
    assert len(COMMANDS) == 40
    assert len({tuple(command) for command in COMMANDS}) == 40


@pytest.mark.parametrize("block", re.split(r"\n\n", TEXT)[1:], ids=lambda block: re.sub(r"\s+", " ", block)[:60])
def test_block_is_a_run_and_its_evaluations(block: str) -> None:
    training, *evaluations = [line.split() for line in block.strip().splitlines()]
    assert training[0] != "evaluate.py"
    trained = compose_any(f"{training[1]}/{training[2]}", *training[3:])
    assert isinstance(trained, schema.TrainConfig)
    assert evaluations
    for script, folder, name, *overrides in evaluations:
        assert script == "evaluate.py"
        evaluated = compose_any(f"{folder}/{name}", *overrides)
        assert isinstance(evaluated, schema.EvalConfig)
        assert evaluated.run_dir == trained.training.output_dir


def smoke(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "runner_scripts/smoke.sh"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_rehearsal_trains_before_it_evaluates_and_empties_only_its_folder(tmp_path: Path, warm_python: Path) -> None:
    for name in ("smoke/earlier", "kept"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    result = smoke(tmp_path, "qwen3b.*wgan", environment=with_python(warm_python))
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    said = [re.fullmatch(r"ok +\d+ s  (\w+\.py) qwen3b/.*", line) for line in lines[1:-1]]
    assert [match and match[1] for match in said] == ["sft_train.py", "evaluate.py", "evaluate_irl.py"]
    assert "3 of 3 commands ok" in lines[-1]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["kept", "smoke"]
    assert sorted(path.name for path in (tmp_path / "outputs/smoke").iterdir()) == ["logs", "qwen3b_airl_wgan"]
    assert "adversarial IRL" in (tmp_path / "outputs/smoke/logs/01.log").read_text()


def test_rehearsal_continues_after_a_failure_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")  # every job rejects it
    result = smoke(tmp_path, "qwen3b.*wgan")
    assert result.returncode == 1
    assert result.stdout.count("FAILED") == 3
    assert "01.log: error: WANDB_MODE=nonsense" in result.stdout
    assert "0 of 3 commands ok" in result.stdout


def test_pattern_without_a_command_is_an_error_and_empties_nothing(tmp_path: Path) -> None:
    (tmp_path / "outputs/smoke/earlier").mkdir(parents=True)
    result = smoke(tmp_path, "no such thing")
    assert result.returncode == 2
    assert result.stderr == "error: no published command matches: no such thing\n"
    assert (tmp_path / "outputs/smoke/earlier").is_dir()
