import json
from pathlib import Path

import pytest
import torch

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.config.schema import EvalConfig
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.traces.resumable import PartialTraces
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.text.token_spans import decode, spans_of, step_ids, token_pieces
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.run_folder import newest_checkpoint
from tests.helpers.configs import compose_config

TRACE = "<think>\n3 + 4 = 7\n7 * 2 = 14\n</think>\n<answer>\n14\n</answer>"


def eval_config(run: Path, out: Path, *overrides: str) -> EvalConfig:
    config = compose_config(
        "config_eval",
        EvalConfig,
        f"run_dir={run}",
        f"output_dir={out}",
        "sampling.n_samples=2",
        "sampling.batch_size=7",
        "eval.n_problems=4",
        "eval.n_validation=3",
        "eval.ks=[1,2]",
        "eval.bootstrap_draws=20",
        *overrides,
    )
    return config


def test_writes_traces_and_metrics_and_never_overwrites_them(run_dir: Path, tmp_path: Path) -> None:
    config = eval_config(run_dir, tmp_path)
    metrics = run_evaluation(config)

    rows = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
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

    with pytest.raises(UserError, match=r"traces\.jsonl is there already.*output_dir"):
        run_evaluation(config)


def test_equal_seeds_give_equal_traces(run_dir: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_evaluation(eval_config(run_dir, tmp_path / name))
    assert (tmp_path / "a/traces.jsonl").read_bytes() == (tmp_path / "b/traces.jsonl").read_bytes()


def test_k_beyond_the_samples_is_an_error_before_any_model_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.ks"):
        run_evaluation(eval_config(tmp_path / "missing", tmp_path, "eval.ks=[1,3]"))


def test_newest_checkpoint_is_the_largest_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        newest_checkpoint(tmp_path)
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"


def test_dataset_config_is_read_from_the_run(run_dir: Path, tmp_path: Path) -> None:
    assert load_dataset_config(run_dir).max_value == 40
    with pytest.raises(UserError, match="no run folder"):
        load_dataset_config(tmp_path)


def test_pieces_join_to_the_text_also_where_a_policy_writes_no_canonical_tokens() -> None:
    tokenizer = build_tokenizer(40)
    ids, spans = encode_completion(tokenizer, TRACE, 100)
    pieces = token_pieces(tokenizer, ids)
    assert "".join(pieces) == TRACE
    assert pieces[-1] == ""  # the end token
    steps = [(8, 17), (18, 28)]
    by_pieces, by_offsets = step_ids(TRACE, spans_of(pieces), steps), step_ids(TRACE, spans, steps)
    assert by_pieces == by_offsets
    assert [by_pieces.count(step) for step in (1, 2)] == [5, 5]

    odd = [*ids[:4], tokenizer.unk_token_id, *ids[2:6], tokenizer.pad_token_id, *ids[4:]]
    assert "".join(token_pieces(tokenizer, odd)) == decode(tokenizer, odd)
    assert len(token_pieces(tokenizer, odd)) == len(odd)


def test_an_evaluation_that_was_cut_short_goes_on_to_the_same_traces(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = eval_config(run_dir, tmp_path / "whole"), eval_config(run_dir, tmp_path / "cut")
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
        run_evaluation(eval_config(run_dir, tmp_path / "cut", "sampling.temperature=0.5"))
    monkeypatch.setattr(PartialTraces, "add", lambda self, rows: (calls.append(len(rows)), real(self, rows))[1])
    run_evaluation(cut)
    assert sum(calls) == 14 + calls[1]  # what was there was not sampled again
    assert (tmp_path / "cut" / "traces.jsonl").read_text() == (tmp_path / "whole" / "traces.jsonl").read_text()
    assert not partial.exists()


def test_the_runs_reward_model_scores_the_samples(run_dir: Path, tmp_path: Path) -> None:
    run_evaluation(eval_config(run_dir, tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    model = RewardModel.from_run(newest_checkpoint(run_dir) / "reward_model")
    for row in rows:
        assert len(row["token_rewards"]) == len(row["token_ids"])
        assert row["score"] == pytest.approx(sum(row["token_rewards"]) / len(row["token_rewards"]), abs=1e-5)
        sequence = TokenSequence(tuple(row["prompt_ids"]), tuple(row["token_ids"]))
        with torch.no_grad():
            expected = model.rewards(collate([sequence], pad_id=0))[0].tolist()
        assert row["token_rewards"] == pytest.approx(expected, abs=1e-4)
