"""gpu_check.sh: what it rejects, the configs of its phases, and one rehearsal from end to end on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reasoning_irl.config import schema
from runner_scripts import gpu_check
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.configs import compose_any
from tests.helpers.traces import write_rows

GSM8K_ROW = json.dumps({"question": "How many are 1 and 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}) + "\n"


def shell(folder: Path, *words: object, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(REPOSITORY / "runner_scripts/gpu_check.sh"), *map(str, words)]
    environment = {**os.environ, "PYTHON": str(python), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_folders_the_usage_is_printed(tmp_path: Path) -> None:
    result = shell(tmp_path, "wheels")
    assert result.returncode == 2
    assert result.stderr.startswith("usage: bash runner_scripts/gpu_check.sh WHEELS_DIR MODEL_DIR")


def test_missing_folder_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    result = shell(tmp_path, tmp_path / "wheels", tmp_path / "model")
    assert result.returncode == 2
    assert result.stderr == f"error: there is no folder {tmp_path / 'model'}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wheels"]


@pytest.mark.parametrize("phase", gpu_check.PHASES)
@pytest.mark.parametrize("has_data", [True, False])
def test_every_phase_has_a_valid_config(tmp_path: Path, phase: str, has_data: bool) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(GSM8K_ROW)
    how = gpu_check.evaluation_overrides(False, []) if phase == "evaluate" else []
    data = tmp_path if has_data else None
    arguments = gpu_check.phase_arguments(phase, tmp_path, data, tmp_path / "runs", how)
    script, folder, name, *overrides = arguments
    assert (REPOSITORY / script).is_file()
    config = compose_any(f"{Path(folder).name}/{name.partition('=')[2]}", *overrides)
    if isinstance(config, schema.EvalConfig):
        assert config.run_dir == str(tmp_path / "runs/airl")
        assert config.sampling.n_samples == 16
        assert config.sampling.load_in_4bit
    else:
        assert isinstance(config, schema.TrainConfig)
        assert config.training.max_steps == 20
        assert config.model.backend == schema.Backend.unsloth
        assert config.model.load_in_4bit


def test_rates_exclude_the_first_step(tmp_path: Path) -> None:
    rows = [{"step": 1, "seconds": 100.0, "num_tokens": 50.0}, {"step": 1, "other": 1.0}]
    rows += [{"step": step, "seconds": 100.0 + 2 * (step - 1), "num_tokens": 50.0 * step} for step in (2, 3)]
    write_rows(tmp_path / "train_log.jsonl", rows)
    assert gpu_check.rates(tmp_path) == {"steps": 3, "seconds_per_step": 2.0, "tokens_per_second": 25.0}


def test_run_without_steps_has_no_rate(tmp_path: Path) -> None:
    assert gpu_check.rates(tmp_path) == {"steps": 0, "tokens_per_second": None}


def test_pinned_packages_that_are_not_installed_are_named(tmp_path: Path) -> None:
    missing = gpu_check.misfits(tmp_path)
    assert not [pin for pin in missing if pin.startswith("torch==")]  # the tests' own environment has it
    assert gpu_check.installed("no-such-package") is None


def test_rehearsal_measures_every_phase(tmp_path: Path, warm_python: Path) -> None:
    result = shell(tmp_path, tmp_path, tmp_path, "found/check.json", "--rehearse", python=warm_python)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "found/check.json").read_text())
    assert found["is_rehearsal"]
    assert found["device"] == "CPU"
    assert list(found["phases"]) == ["sft", "airl", "grpo", "evaluate"]
    for phase in found["phases"].values():
        assert phase["ok"]
        assert phase["peak_host_memory_gib"] > 0
        assert phase["tokens_per_second"] > 0
    # The runs are deleted, but their output is kept.
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["check.json", "check.log"]


def test_failing_phase_is_reported_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ["sft_train.py", "no.such.key=1"]
    found = gpu_check.measured("sft", arguments, tmp_path, log, 60)
    assert found["ok"] is False
    assert found["error"].startswith("error: there is no key no")


def test_without_a_gpu_it_stops_immediately(tmp_path: Path) -> None:
    command = (REPOSITORY / "runner_scripts/gpu_check.py", "check", tmp_path, "out.json", "--seconds", "60")
    result = run_python(*command, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    assert result.stderr == "error: no GPU found: add --rehearse to rehearse on a CPU\n"
