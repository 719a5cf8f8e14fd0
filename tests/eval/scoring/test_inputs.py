"""Which files and models an evaluation reads."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.eval.scoring.inputs import ScoringJob, find_inputs
from reasoning_irl.eval.traces.labelled_errors import SteppedTrace
from reasoning_irl.eval.traces.trace_file import TEST, read_traces
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils.errors import ConfigError, UserError
from tests.helpers.configs import irl_config
from tests.helpers.traces import foreign_rows, write_rows


def test_paths_that_are_not_given_are_those_of_the_run(run_dir: Path, reward_folder: Path) -> None:
    found = find_inputs(irl_config(f"run_dir={run_dir}"))
    assert found.traces == run_dir / "traces.jsonl"
    assert found.reward.name == str(reward_folder)
    assert found.frozen == run_dir / "reward_model_initial"
    assert found.policy == str(run_dir / "checkpoint-10")
    assert found.against is None


def test_another_checkpoint_of_the_run_can_be_chosen(
    run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(run / "checkpoint-10", run / "checkpoint-20")
    sampled = {"policy": str(run / "checkpoint-10")}
    (run / "metrics.json").write_text(json.dumps(sampled))
    found = find_inputs(irl_config(f"run_dir={run}", "checkpoint=checkpoint-10"))
    assert (found.reward.name, found.policy) == (str(run / "checkpoint-10/reward_model"), str(run / "checkpoint-10"))
    assert not caplog.text
    assert find_inputs(irl_config(f"run_dir={run}")).policy == str(run / "checkpoint-20")
    assert "the traces of" in caplog.text  # which are not of the models that score them
    assert "checkpoint-10, and are scored with checkpoint-20" in caplog.text


def test_given_paths_replace_those_of_the_run(run_dir: Path, reward_folder: Path, tmp_path: Path) -> None:
    against = write_rows(tmp_path / "other/traces.jsonl", [])
    given = (
        f"eval.traces={tmp_path}/mine.jsonl",
        f"model.reward_path={run_dir / 'reward_model_initial'}",
        f"model.frozen_path={reward_folder}",
        "model.policy_path=some/model",
        f"eval.against={against.parent}",
    )
    found = find_inputs(irl_config(f"run_dir={run_dir}", *given))
    assert found.traces == tmp_path / "mine.jsonl"
    assert found.reward.name == str(run_dir / "reward_model_initial")
    assert (found.frozen, found.policy, found.against) == (reward_folder, "some/model", against)


def test_without_a_run_only_given_baselines_are_read(reward_folder: Path) -> None:
    found = find_inputs(irl_config("run_dir=null", f"model.reward_path={reward_folder}", "eval.traces=mine.jsonl"))
    assert (found.frozen, found.policy, found.against) == (None, None, None)


def test_run_without_an_initial_reward_model_has_no_frozen_baseline(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("reward_model_initial"))
    assert find_inputs(irl_config(f"run_dir={tmp_path / 'run'}")).frozen is None


def test_missing_inputs_are_named(reward_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.reward_path"):
        find_inputs(irl_config("run_dir=null"))
    with pytest.raises(ConfigError, match=r"eval\.traces"):
        find_inputs(irl_config("run_dir=null", f"model.reward_path={reward_folder}"))
    with pytest.raises(UserError, match="no checkpoint"):
        find_inputs(irl_config(f"run_dir={tmp_path}"))


def test_window_is_the_smaller_of_model_and_tokenizer(
    run_dir: Path, reward_folder: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = find_inputs(irl_config(f"run_dir={run_dir}"))
    positions = json.loads((reward_folder / "config.json").read_text())["max_position_embeddings"]
    assert inputs.window(tokenizer) == positions
    monkeypatch.setattr(tokenizer, "model_max_length", positions - 1)
    assert inputs.window(tokenizer) == positions - 1


def test_planted_errors_follow_the_traces(run_dir: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    traces = read_traces(write_rows(tmp_path / "t.jsonl", foreign_rows(1)), tokenizer, 0.0, 0)
    planted = SteppedTrace("p", TEST, traces[0].sequence, [*traces[0].step_ids], 2)
    config = irl_config(f"run_dir={run_dir}")
    job = ScoringJob(config, find_inputs(config), tokenizer, traces, [planted])
    assert job.sequences == [*(trace.sequence for trace in traces), planted.sequence]
    assert [stepped.sequence for stepped in job.stepped] == job.sequences
    last = job.stepped[-1]
    assert last.pieces == token_pieces(tokenizer, planted.sequence.completion_ids)
    assert last.step_ids == planted.step_ids
