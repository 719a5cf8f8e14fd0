"""The policy's log-probabilities and entropies, also for a reward model with another tokenizer."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from reasoning_irl.config.schema import Granularity, RewardHead
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.scoring.inputs import ScoringJob, find_inputs
from reasoning_irl.eval.scoring.policy_baselines import negative_entropies, onto, policy_logprobs, sft_logprobs
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model, load_reward_model
from tests.helpers.configs import eval_config, irl_config
from tests.helpers.models import save_tiny_model
from tests.helpers.tokenizers import byte_level, random_cover
from tests.helpers.traces import read_rows, write_rows


@pytest.fixture(scope="module")
def bytes_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model whose tokens are bytes and a few merges."""
    folder, tokenizer = tmp_path_factory.mktemp("bytes"), byte_level(300)
    save_tiny_model(folder / "base", tokenizer)
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 1)
    build_reward_model(str(folder / "base"), spec, tokenizer).save(folder / "reward_model")
    tokenizer.save_pretrained(folder / "reward_model")
    return folder / "reward_model"


@pytest.fixture(scope="module")
def sampled(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with samples of its embedded policy, every other one labelled as right."""
    run = tmp_path_factory.mktemp("sampled") / "run"
    shutil.copytree(run_dir, run)
    run_evaluation(eval_config(f"run_dir={run}"))
    rows = read_rows(run / "traces.jsonl")
    write_rows(run / "traces.jsonl", [{**row, "correct": number % 2 == 0} for number, row in enumerate(rows)])
    return run


def job(run: Path, file: Path, reward: Path) -> ScoringJob:
    """The traces of `file`, to be scored in the tokens of `reward`."""
    config = irl_config(f"run_dir={run}", f"eval.traces={file}", f"model.reward_path={reward}")
    tokenizer = AutoTokenizer.from_pretrained(reward)
    return ScoringJob(config, find_inputs(config), tokenizer, read_traces(file, tokenizer, 0.3, 0), [])


def own_job(run: Path, file: Path) -> ScoringJob:
    """The traces of `file`, to be scored in the tokens of the policy."""
    return job(run, file, run / "checkpoint-10/reward_model")


# Log-probabilities


def test_mean_value_is_preserved_between_tokenizers() -> None:
    rng = random.Random(0)
    for _ in range(300):
        length = rng.randint(1, 20)
        source, target = random_cover(rng, length), random_cover(rng, length)
        values = [rng.gauss(0, 1) for _ in source]
        assert np.mean(onto(values, source, target, False)) == pytest.approx(np.mean(values))


def test_end_tokens_are_matched_to_each_other() -> None:
    # "12" is one token of the source and two of the target, plus an end token; sums are scaled by 3 / 2.
    assert onto([-4.0, -1.0], [(0, 2), (2, 2)], [(0, 1), (1, 2), (2, 2)], True) == [-3.0, -3.0, -1.5]
    assert onto([-4.0], [(0, 2)], [(0, 1), (1, 2)], False) == [-4.0, -4.0]
    assert onto([-4.0, -2.0], [(0, 0), (0, 0)], [(0, 0)], True) == [-3.0]  # no text


def test_mean_log_probability_of_a_trace_is_the_policys_own(sampled: Path, bytes_reward: Path) -> None:
    """Trap: log-probabilities of another tokenizer's tokens, used because their number happens to agree."""
    given = job(sampled, sampled / "traces.jsonl", bytes_reward)
    found = policy_logprobs(given)
    assert found is not None
    for values, row, sequence in zip(found, read_rows(sampled / "traces.jsonl"), given.sequences, strict=True):
        assert len(values) == len(sequence.completion_ids) != len(row["token_ids"])
        assert np.mean(values) == pytest.approx(np.mean(row["token_logprobs"]))
        assert np.mean(values) == pytest.approx(row["logprob"], abs=1e-5)
    without_policy = replace(given.inputs, policy=None)
    assert policy_logprobs(replace(given, inputs=without_policy)) is None


def test_log_probabilities_missing_in_the_file_are_computed_in_the_policys_tokens(
    sampled: Path, bytes_reward: Path, tmp_path: Path
) -> None:
    rows = read_rows(sampled / "traces.jsonl")
    file = write_rows(tmp_path / "t.jsonl", [{k: v for k, v in row.items() if k != "token_logprobs"} for row in rows])
    found = policy_logprobs(job(sampled, file, bytes_reward))
    assert found is not None
    for values, row in zip(found, rows, strict=True):
        assert np.mean(values) == pytest.approx(row["logprob"], abs=1e-4)


def test_log_probabilities_in_the_file_are_used(sampled: Path, tmp_path: Path) -> None:
    rows = read_rows(sampled / "traces.jsonl")
    rows[0]["token_logprobs"] = [-7.0] * len(rows[0]["token_ids"])
    del rows[1]["token_logprobs"]
    found = policy_logprobs(own_job(sampled, write_rows(tmp_path / "t.jsonl", rows)))
    assert found is not None
    assert set(found[0]) == {-7.0}
    assert np.mean(found[1]) == pytest.approx(rows[1]["logprob"], abs=1e-4)


def test_sft_log_probabilities_are_of_that_policy_and_not_of_the_file(sampled: Path, tmp_path: Path) -> None:
    """Trap: the file's log-probabilities, which are those of the policy that sampled it."""
    rows = [{**row, "token_logprobs": [-7.0] * len(row["token_ids"])} for row in read_rows(sampled / "traces.jsonl")]
    given = own_job(sampled, write_rows(tmp_path / "t.jsonl", rows))
    assert sft_logprobs(given) is None
    found = sft_logprobs(replace(given, inputs=replace(given.inputs, sft=str(sampled / "checkpoint-10"))))
    assert found is not None
    for values, row in zip(found, rows, strict=True):
        assert np.mean(values) == pytest.approx(row["logprob"], abs=1e-4)  # here, both are the same policy


# Entropies


@torch.no_grad()
def test_entropies_are_negated_so_that_higher_is_surer(sampled: Path) -> None:
    given = own_job(sampled, sampled / "traces.jsonl")
    found = negative_entropies(given)
    assert found is not None
    policy = AutoModelForCausalLM.from_pretrained(sampled / "checkpoint-10")
    for values, sequence in zip(found, given.sequences, strict=True):
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        logps = policy(input_ids=ids).logits[0, len(sequence.prompt_ids) - 1 : -1].log_softmax(-1)
        assert list(values) == pytest.approx((logps.exp() * logps).sum(-1).tolist(), abs=1e-4)


def test_entropies_in_the_file_are_used(sampled: Path, tmp_path: Path) -> None:
    rows = read_rows(sampled / "traces.jsonl")
    rows = [{**row, "token_entropies": [1.5] * len(row["token_ids"])} for row in rows]
    given = own_job(sampled, write_rows(tmp_path / "t.jsonl", rows))
    found = negative_entropies(replace(given, inputs=replace(given.inputs, policy=None)))
    assert found is not None
    assert {value for values in found for value in values} == {-1.5}


def test_entropies_need_a_policy_with_the_same_tokens(sampled: Path, bytes_reward: Path) -> None:
    assert negative_entropies(job(sampled, sampled / "traces.jsonl", bytes_reward)) is None
    own = own_job(sampled, sampled / "traces.jsonl")
    assert negative_entropies(replace(own, inputs=replace(own.inputs, policy=None))) is None


# A whole evaluation


def test_reward_model_of_another_family_scores_the_samples_of_a_run(
    sampled: Path, bytes_reward: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sampled, run)
    before = read_rows(run / "traces.jsonl")
    config = irl_config(f"run_dir={run}", f"model.reward_path={bytes_reward}")
    metrics = run_irl_evaluation(config)
    scored = read_rows(run / "traces.jsonl")
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
    # The run's untrained reward model reads other tokens, so it is not a baseline for this one.
    assert metrics["frozen/auroc"] is None
    assert "has a different tokenizer from the reward model" in caplog.text
    assert run_irl_evaluation(config) == metrics  # in place, on the file that it has just written
