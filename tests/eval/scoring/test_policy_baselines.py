"""The log-probability baseline where policy and reward model have different tokenizers."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reasoning_irl.config.schema import EvalConfig, Granularity, IRLEvalConfig, RewardHead
from reasoning_irl.data.alignment import carry_sums
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.scoring.policy_baselines import onto, policy_logprobs
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model, load_reward_model
from reasoning_irl.text.trace import Span
from tests.helpers.configs import compose_config
from tests.helpers.tokenizers import byte_level


def shares(values: Sequence[float], source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """Character by character, in the plainest way."""
    characters = [0.0] * length
    for value, (start, end) in zip(values, source, strict=True):
        own = range(start, end) if end > start else [min(start, length - 1)]
        for c in own:
            characters[c] += value / len(own)
    return [sum(characters[c] / sum(a <= c < b for a, b in target) for c in range(start, end)) for start, end in target]


def cover(rng: random.Random, length: int) -> list[Span]:
    """Spans without gaps; some are empty, some share a character."""
    spans: list[Span] = []
    at = 0
    while at < length:
        end = min(length, at + rng.choice([0, 1, 1, 2, 4]))
        spans += [(at, end)] * (2 if end - at == 1 and rng.random() < 0.3 else 1)
        at = end
    return spans


def test_random_sums_are_shared_out_as_in_the_reference_and_kept() -> None:
    rng = random.Random(0)
    for _ in range(300):
        length = rng.randint(1, 20)
        source, target = cover(rng, length), cover(rng, length)
        values = [rng.gauss(0, 1) for _ in source]
        found = carry_sums(values, source, target, length)
        assert found == pytest.approx(shares(values, source, target, length))
        assert sum(found) == pytest.approx(sum(values))
        assert np.mean(onto(values, source, target, False)) == pytest.approx(np.mean(values))


def test_the_end_tokens_share_is_the_end_tokens() -> None:
    # "12" as one token and as two, each with an end token; three tokens for two, so all is worth 3 / 2
    assert onto([-4.0, -1.0], [(0, 2), (2, 2)], [(0, 1), (1, 2), (2, 2)], True) == [-3.0, -3.0, -1.5]
    assert onto([-4.0], [(0, 2)], [(0, 1), (1, 2)], False) == [-4.0, -4.0]
    assert onto([-4.0, -2.0], [(0, 0), (0, 0)], [(0, 0)], True) == [-3.0]  # no text


@pytest.fixture(scope="module")
def bytes_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model whose tokens are bytes and a few merges."""
    folder, tokenizer = tmp_path_factory.mktemp("bytes"), byte_level(300)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **sizes)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 1)
    build_reward_model(str(folder / "base"), spec, tokenizer).save(folder / "reward_model")
    tokenizer.save_pretrained(folder / "reward_model")
    return folder / "reward_model"


@pytest.fixture(scope="module")
def sampled(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with traces of its embedded policy, some of them called right."""
    run = tmp_path_factory.mktemp("sampled") / "run"
    shutil.copytree(run_dir, run)
    AutoTokenizer.from_pretrained(run / "checkpoint-10").save_pretrained(run / "reward_model_initial")
    small = ("sampling.n_samples=2", "eval.n_problems=4", "eval.n_validation=3", "eval.ks=[1]")
    config = compose_config("config_eval", EvalConfig, f"run_dir={run}", "eval.bootstrap_draws=20", *small)
    run_evaluation(config)
    rows = read(run / "traces.jsonl")
    write(run / "traces.jsonl", [{**row, "correct": number % 2 == 0} for number, row in enumerate(rows)])
    return run


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def scoring_config(*overrides: str) -> IRLEvalConfig:
    small = ("eval.n_planted=4", "eval.bootstrap_draws=20", "eval.batch_size=9", "eval.report_traces=2")
    config = compose_config("config_irl_eval", IRLEvalConfig, *small, *overrides)
    return config


def test_the_mean_log_probability_of_a_trace_is_the_policys_own(sampled: Path, bytes_reward: Path) -> None:
    """Trap: log-probabilities of one tokenizer's tokens read as those of another's, where lengths happen to agree."""
    file, policy = sampled / "traces.jsonl", str(sampled / "checkpoint-10")
    tokenizer = AutoTokenizer.from_pretrained(bytes_reward)
    traces = read_traces(file, tokenizer, 0.3, 0)
    sequences = [trace.sequence for trace in traces]
    found = policy_logprobs(scoring_config(f"run_dir={sampled}"), file, policy, tokenizer, traces, sequences)
    assert found is not None
    for values, row, sequence in zip(found, read(file), sequences, strict=True):
        assert len(values) == len(sequence.completion_ids) != len(row["token_ids"])
        assert np.mean(values) == pytest.approx(np.mean(row["token_logprobs"]))
        assert np.mean(values) == pytest.approx(row["logprob"], abs=1e-5)
    assert policy_logprobs(scoring_config(f"run_dir={sampled}"), file, None, tokenizer, traces, sequences) is None


def test_logprobs_that_the_file_does_not_name_are_computed_in_the_policys_tokens(
    sampled: Path, bytes_reward: Path, tmp_path: Path
) -> None:
    rows = read(sampled / "traces.jsonl")
    for row in rows:
        del row["token_logprobs"]
    write(tmp_path / "t.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(bytes_reward)
    traces = read_traces(tmp_path / "t.jsonl", tokenizer, 0.3, 0)
    found = policy_logprobs(
        scoring_config(f"run_dir={sampled}"),
        tmp_path / "t.jsonl",
        str(sampled / "checkpoint-10"),
        tokenizer,
        traces,
        [trace.sequence for trace in traces],
    )
    assert found is not None
    for values, row in zip(found, rows, strict=True):
        assert np.mean(values) == pytest.approx(row["logprob"], abs=1e-4)


def test_a_reward_model_of_another_family_scores_a_runs_traces(
    sampled: Path, bytes_reward: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sampled, run)
    before = read(run / "traces.jsonl")
    config = scoring_config(f"run_dir={run}", f"model.reward_path={bytes_reward}")
    metrics = run_irl_evaluation(config)
    scored = read(run / "traces.jsonl")
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(bytes_reward)
    model = load_reward_model(bytes_reward, tokenizer)
    for old, row in zip(before, scored, strict=True):
        assert {key: row[key] for key in ("token_ids", "token_logprobs", "logprob")} == {
            key: old[key] for key in ("token_ids", "token_logprobs", "logprob")
        }
        assert len(row["tokens"]) == len(row["token_rewards"]) != len(row["token_ids"])
        assert "".join(row["tokens"]) == row["completion"]
        ids, _ = encode_completion(tokenizer, row["completion"], 10**6)
        sequence = TokenSequence(encode_prompt(tokenizer, row["prompt"]), ids[:-1] if row["truncated"] else ids)
        with torch.no_grad():
            rewards = model.rewards(collate([sequence], 0))[0].tolist()
        assert row["token_rewards"] == pytest.approx(rewards, abs=1e-5)
    for name in ("auroc", "first_error_hit@1/planted"):
        assert metrics[f"reward/{name}"] is not None
        assert metrics[f"logprob/{name}"] is not None
    # The run's untrained reward model reads other tokens: no baseline for this one.
    assert metrics["frozen/auroc"] is None
    assert "another tokenizer than the reward model" in caplog.text
    assert run_irl_evaluation(config) == metrics  # in place, on what it wrote itself
