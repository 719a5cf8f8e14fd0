"""evaluate.py end to end: sampling a policy, resuming, and what it writes."""

import json
from pathlib import Path

import pytest
import torch

from reasoning_irl.config.schema import EvalConfig
from reasoning_irl.data.tokens import TokenSequence, collate
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.traces.resumable import PartialTraces
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.errors import ConfigError, UserError
from tests.helpers.configs import eval_config
from tests.helpers.traces import read_rows


def config_of(run: Path, out: Path, *overrides: str) -> EvalConfig:
    given = (f"run_dir={run}", f"output_dir={out}", "sampling.batch_size=7", "eval.ks=[1,2]")
    return eval_config(*given, *overrides)


def test_writes_traces_and_metrics_and_never_overwrites_them(run_dir: Path, tmp_path: Path) -> None:
    config = config_of(run_dir, tmp_path)
    metrics = run_evaluation(config)

    rows = read_rows(tmp_path / "traces.jsonl")
    assert [row["split"] for row in rows] == ["validation"] * 6 + ["test"] * 8
    assert [row["sample"] for row in rows] == [0, 1] * 7
    assert len({row["id"] for row in rows}) == 7
    for row in rows:
        assert "".join(row["tokens"]) == row["completion"]
        assert len(row["tokens"]) == len(row["token_ids"]) == len(row["token_logprobs"])
        assert row["logprob"] == pytest.approx(sum(row["token_logprobs"]) / len(row["token_logprobs"]), abs=1e-5)
        assert row["truncated"] == (len(row["token_ids"]) == 48 and row["token_ids"][-1] != 2)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["n_problems"], metrics["n_samples"], metrics["supervision"]) == (4, 2, "demonstrations")
    for name in ("pass@1", "pass@2", "majority@2", "oracle@2", "completion_length", "format_ok"):
        assert metrics[f"{name}/low"] <= metrics[name] <= metrics[f"{name}/high"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "traces.jsonl"]

    with pytest.raises(UserError, match=r"traces\.jsonl already exists.*output_dir"):
        run_evaluation(config)


def test_checkpoint_that_the_run_does_not_have_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint=checkpoint-9 of .*: it is not there"):
        run_evaluation(config_of(run_dir, tmp_path, "checkpoint=checkpoint-9"))


def test_equal_seeds_give_equal_traces(run_dir: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_evaluation(config_of(run_dir, tmp_path / name))
    assert (tmp_path / "a/traces.jsonl").read_bytes() == (tmp_path / "b/traces.jsonl").read_bytes()


def test_k_above_the_number_of_samples_is_an_error_before_any_model_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.ks"):
        run_evaluation(config_of(tmp_path / "missing", tmp_path, "eval.ks=[1,3]"))


def test_evaluation_killed_between_its_two_files_can_be_finished(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_evaluation(config_of(run_dir, tmp_path / "straight"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for call in ("write_metrics", "PartialTraces.remove"):
        out = tmp_path / call
        with monkeypatch.context() as patched:
            patched.setattr(f"reasoning_irl.eval.evaluate.{call}", killed)
            with pytest.raises(KeyboardInterrupt):
                run_evaluation(config_of(run_dir, out))
        if call == "write_metrics":
            run_evaluation(config_of(run_dir, out))
        else:  # all was written
            with pytest.raises(UserError, match="already exists"):
                run_evaluation(config_of(run_dir, out))
        assert json.loads((out / "metrics.json").read_text())["pass@1"] == expected["pass@1"]
        assert (out / "traces.jsonl").read_bytes() == (tmp_path / "straight/traces.jsonl").read_bytes()
        assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "traces.jsonl"]


def test_interrupted_evaluation_resumes_to_the_same_traces(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = config_of(run_dir, tmp_path / "whole"), config_of(run_dir, tmp_path / "cut")
    run_evaluation(whole)
    real, calls = PartialTraces.add, []

    def dies_at_the_second(self: PartialTraces, rows: list[dict[str, object]]) -> None:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(PartialTraces, "add", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(cut)
    partial = tmp_path / "cut" / "traces.partial.jsonl"
    with partial.open("a") as file:
        file.write('{"id": "arithmetic-test-3", "compl')  # killed in the middle of a line
    assert not (tmp_path / "cut" / "traces.jsonl").exists()
    with pytest.raises(UserError, match="other settings"):
        run_evaluation(config_of(run_dir, tmp_path / "cut", "sampling.temperature=0.5"))
    monkeypatch.setattr(PartialTraces, "add", lambda self, rows: (calls.append(len(rows)), real(self, rows))[1])
    run_evaluation(cut)
    assert sum(calls) == 14 + calls[1]  # no finished problem was sampled again
    assert (tmp_path / "cut" / "traces.jsonl").read_text() == (tmp_path / "whole" / "traces.jsonl").read_text()
    assert not partial.exists()


def test_samples_are_scored_by_the_reward_model_of_the_run(run_dir: Path, reward_folder: Path, tmp_path: Path) -> None:
    run_evaluation(config_of(run_dir, tmp_path))
    model = RewardModel.from_run(reward_folder)
    for row in read_rows(tmp_path / "traces.jsonl"):
        assert len(row["token_rewards"]) == len(row["token_ids"])
        assert row["score"] == pytest.approx(sum(row["token_rewards"]) / len(row["token_rewards"]), abs=1e-5)
        sequence = TokenSequence(tuple(row["prompt_ids"]), tuple(row["token_ids"]))
        with torch.no_grad():
            expected = model.rewards(collate([sequence], pad_id=0))[0].tolist()
        assert row["token_rewards"] == pytest.approx(expected, abs=1e-4)
