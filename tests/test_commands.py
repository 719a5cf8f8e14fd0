"""The commands as users type them: the whole pipeline on two training steps, and mistakes that end in one line."""

import json
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import REPOSITORY, run_python

TINY = ["model.embedded.hidden_size=16", "model.embedded.heads=2", "dataset.n_train=32", "dataset.n_heldout=4"]
SHORT = ["training.max_steps=2", "training.save_steps=2", "training.per_device_train_batch_size=8"]
WARM = ["warm_start.n_traces=64", "warm_start.epochs=1"]


def refused(python: Path, *arguments: str) -> str:
    """The line in which a wrong command ends."""
    result = run_python(*arguments, python=python)
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in result.stderr
    return line


@pytest.mark.slow
def test_whole_pipeline_runs_on_two_steps(tmp_path: Path, warm_python: Path) -> None:
    run = tmp_path / "run"
    few = ["eval.n_problems=6", "eval.n_validation=4"]
    train = [f"training.output_dir={run}", "model.reward_warmup_steps=2", "training.num_generations=4"]
    train.append("guard.enabled=false")  # which would warn about skipped steps
    started: set[str] = set()
    continued = [f"training.output_dir={run}/sft_continued", f"model.checkpoint={run}/warm_start", *TINY[2:]]
    for command in (
        ["irl_train.py", *train, *TINY, *SHORT, *WARM],
        ["sft_train.py", *continued, *SHORT],
        ["evaluate.py", f"run_dir={run}", *few],
        [
            "evaluate.py",
            f"run_dir={run}",
            f"policy_path={run}/warm_start",
            f"output_dir={run}/warm_start_samples",
            *few,
        ],
        ["evaluate.py", f"run_dir={run}/sft_continued", *few],
        ["evaluate_irl.py", f"run_dir={run}", "eval.n_planted=8", "eval.bootstrap_draws=20"],
        [
            "evaluate_irl.py",
            f"run_dir={run}",
            f"eval.traces={run}/warm_start_samples/traces.jsonl",
            f"output_dir={run}/warm_start_samples",
            "eval.n_planted=0",
            "eval.bootstrap_draws=20",
        ],
        ["figures/plot_run.py", str(run)],
        ["-m", "reasoning_irl.eval.quickstart_report", str(run), "1"],
    ):
        # Each program starts from scratch once.
        result = run_python(*command, python=warm_python if command[0] in started else sys.executable)
        started.add(command[0])
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stderr == ""
        if command[0] != "evaluate_irl.py":  # its tables are as wide as they have columns
            assert max(map(len, result.stdout.replace(str(tmp_path), "outputs").splitlines())) <= 120
    metrics = json.loads((run / "metrics.json").read_text())
    for key in (
        "seconds/total",
        "warm_start/pass@1",
        "warm_start/pass@8",
        "airl/pass@1",
        "airl/pass@8",
        "sft_continued/pass@1",
        "majority@8",
        "oracle@8",
        "reward/auroc",
        "reward/auroc_within_prompt",
        "reward/rerank@1|8",
        "random/rerank@1|8",
        "logprob/rerank@1|8",
        "frozen/rerank@1|8",
        "warm_start/reward/rerank@1|8",
        "warm_start/logprob/auroc_within_prompt",
        *(f"{m}/first_error_hit@1/{e}" for m in ("reward", "logprob") for e in ("planted", "natural")),
    ):
        assert key in metrics
    assert (run / "report.html").is_file()
    assert list((run / "figures").glob("*.png"))
    assert (run / "checkpoint-2" / "reward_model" / "config.json").is_file()
    assert "already contains a run" in refused(warm_python, "irl_train.py", f"training.output_dir={run}")


@pytest.mark.slow
def test_bad_data_is_rejected_in_one_line_before_anything_is_written(tmp_path: Path, warm_python: Path) -> None:
    file, out = tmp_path / "data.jsonl", tmp_path / "out"
    file.write_text('{"question": "a", "reasoning": "b", "answer": "c"}\n{"question": broken\n')
    job = ["irl_train.py", "dataset.name=jsonl", "warm_start.enabled=false", f"training.output_dir={out}"]
    assert "does not exist" in refused(warm_python, *job, "dataset.path=missing.jsonl", "model.policy_name=x")
    assert "data.jsonl:2" in refused(warm_python, *job, f"dataset.path={file}", "model.policy_name=some/model")
    file.write_text('{"question": "a", "reasoning": "b"}\n')
    assert "answer" in refused(warm_python, *job, f"dataset.path={file}", "model.policy_name=some/model")
    file.write_text("")
    assert "data.jsonl" in refused(warm_python, *job, f"dataset.path={file}", "model.policy_name=some/model")
    assert not out.exists()


@pytest.mark.slow
def test_long_prompts_and_missing_models_are_rejected(tmp_path: Path, warm_python: Path) -> None:
    job = ["irl_train.py", *TINY, "warm_start.enabled=false", f"training.output_dir={tmp_path / 'out'}"]
    assert "max_prompt_length" in refused(warm_python, *job, "training.max_prompt_length=5")
    assert "model.reward_name" in refused(warm_python, *job, "model.reward_name=./no/such/folder")


@pytest.mark.slow
def test_folder_without_a_run_cannot_be_evaluated(tmp_path: Path, warm_python: Path) -> None:
    assert "not a run folder" in refused(warm_python, "evaluate.py", f"run_dir={tmp_path}")


@pytest.mark.slow
def test_sweep_gives_every_variant_its_own_run(tmp_path: Path, warm_python: Path) -> None:
    experiment = [f"--config-path={REPOSITORY}/configs/qwen3b", "--config-name=3B_1B_config_irl_train"]
    sweep = ("-m", "variant=noper,[wgan,step]", "scale=smoke")
    result = run_python(REPOSITORY / "irl_train.py", *experiment, *sweep, cwd=tmp_path, python=warm_python)
    assert result.returncode == 0, result.stderr[-3000:]
    runs = tmp_path / "outputs/smoke"
    assert sorted(path.name for path in runs.iterdir()) == ["qwen3b_airl_noper", "qwen3b_airl_wgan_step"]
    config = (runs / "qwen3b_airl_wgan_step/config.yaml").read_text()
    assert "classifier_loss: wgan" in config
    assert "reward_granularity: step" in config
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]  # no multirun/ folder
