"""gpu_check.sh: what it refuses, what its phases compose to, and one rehearsal from end to end on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, schema
from reasoning_irl.config.compose import CONFIGS, SCHEMAS
from reasoning_irl.config.compose import to_config as checked
from runner_scripts import gpu_check

ROOT = Path(__file__).parents[2]
GSM8K_ROW = json.dumps({"question": "How many are 1 and 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}) + "\n"


def shell(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "runner_scripts/gpu_check.sh"), *map(str, words)]
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_folders_it_says_how_it_is_used(tmp_path: Path) -> None:
    result = shell(tmp_path, "wheels")
    assert result.returncode == 2
    assert result.stderr.startswith("usage: bash runner_scripts/gpu_check.sh WHEELS_DIR MODEL_DIR")


def test_a_folder_that_there_is_not_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    result = shell(tmp_path, tmp_path / "wheels", tmp_path / "model")
    assert result.returncode == 2
    assert result.stderr == f"error: there is no folder {tmp_path / 'model'}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wheels"]


@pytest.mark.parametrize("phase", gpu_check.PHASES)
@pytest.mark.parametrize("has_data", [True, False])
def test_a_phase_is_a_config_that_the_scripts_accept(tmp_path: Path, phase: str, has_data: bool) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(GSM8K_ROW)
    how = gpu_check.evaluation_overrides(False, []) if phase == "evaluate" else []
    data = tmp_path if has_data else None
    arguments = gpu_check.phase_arguments(phase, tmp_path, data, tmp_path / "runs", how)
    script, folder, name, *overrides = arguments
    assert (ROOT / script).is_file()
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config_name = f"{Path(folder).name}/{name.partition('=')[2]}"
        config = checked(compose(config_name, overrides=overrides), *SCHEMAS.values())
    if isinstance(config, schema.EvalConfig):
        assert config.run_dir == str(tmp_path / "runs/airl")
        assert config.sampling.n_samples == 16
        assert config.sampling.load_in_4bit
    else:
        assert isinstance(config, schema.TrainConfig)
        assert config.training.max_steps == 20
        assert config.model.backend == schema.Backend.unsloth
        assert config.model.load_in_4bit


def test_rates_leave_the_first_step_out(tmp_path: Path) -> None:
    rows = [{"step": 1, "seconds": 100.0, "num_tokens": 50.0}, {"step": 1, "other": 1.0}]
    rows += [{"step": step, "seconds": 100.0 + 2 * (step - 1), "num_tokens": 50.0 * step} for step in (2, 3)]
    (tmp_path / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert gpu_check.rates(tmp_path) == {"steps": 3, "seconds_per_step": 2.0, "tokens_per_second": 25.0}


def test_a_run_that_never_stepped_has_no_rate(tmp_path: Path) -> None:
    assert gpu_check.rates(tmp_path) == {"steps": 0, "tokens_per_second": None}


def test_what_is_pinned_and_not_installed_is_named(tmp_path: Path) -> None:
    missing = gpu_check.misfits(tmp_path)
    assert not [pin for pin in missing if pin.startswith("torch==")]  # the tests' own environment has it
    assert gpu_check.installed("no-such-package") is None


@pytest.mark.slow
def test_a_rehearsal_measures_every_phase(tmp_path: Path) -> None:
    result = shell(tmp_path, tmp_path, tmp_path, "found/check.json", "--rehearse")
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "found/check.json").read_text())
    assert found["is_rehearsal"]
    assert found["device"] == "CPU"
    assert list(found["phases"]) == ["sft", "airl", "grpo", "evaluate"]
    for phase in found["phases"].values():
        assert phase["ok"]
        assert phase["peak_host_memory_gib"] > 0
        assert phase["tokens_per_second"] > 0
    # The runs themselves are gone; what they printed is kept.
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["check.json", "check.log"]


def test_a_phase_that_fails_is_reported_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ["sft_train.py", "no.such.key=1"]
    found = gpu_check.measured("sft", arguments, tmp_path, log, 60)
    assert found["ok"] is False
    assert found["error"].startswith("error: there is no key no")


def test_without_a_gpu_it_stops_at_once(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "runner_scripts/gpu_check.py"), "check", str(tmp_path), "out.json"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [*command, "--seconds", "60"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: no GPU here: add --rehearse to rehearse on a CPU\n"
