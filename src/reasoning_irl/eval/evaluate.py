"""Samples a policy on test problems: traces.jsonl, and metrics.json of what it gets right."""

import json
import time
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, set_seed

from reasoning_irl.config.schema import Algorithm, DatasetName, EvalConfig
from reasoning_irl.data.arithmetic import first_wrong_step
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.records import Record, extract_answer, step_spans
from reasoning_irl.data.tokens import TokenSequence, check_prompt_lengths
from reasoning_irl.eval.generation import Progress, end_ids, on_best_device, sample, score_by_length, token_logprobs
from reasoning_irl.eval.metrics import majority_at, pass_at_k
from reasoning_irl.eval.pieces import decode, token_pieces
from reasoning_irl.eval.summary import Metrics, Summary, write_metrics
from reasoning_irl.eval.trace_file import TEST, VALIDATION
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.rewards.checking import is_right, vote
from reasoning_irl.rewards.kinds import AnswerKind
from reasoning_irl.rewards.verifiable import is_well_formed
from reasoning_irl.utils.errors import ConfigError
from reasoning_irl.utils.run_folder import (
    METRICS_FILE,
    TRACES_FILE,
    load_dataset_config,
    load_run_config,
    newest_checkpoint,
    refuse_to_overwrite,
    write_atomically,
)

# What each algorithm is shown.
SUPERVISION = {
    Algorithm.airl.value: "demonstrations",
    Algorithm.sft.value: "demonstrations",
    Algorithm.grpo.value: "verifier",
}


def run_evaluation(config: EvalConfig) -> Metrics:
    """Writes traces.jsonl and metrics.json to `output_dir`; returns the metrics, which count test problems only."""
    started = time.perf_counter()
    if max(config.eval.ks, default=1) > config.sampling.n_samples or min(config.eval.ks, default=1) < 1:
        raise ConfigError(f"eval.ks={config.eval.ks} must lie in 1..sampling.n_samples={config.sampling.n_samples}")
    run_dir, output_dir = Path(config.run_dir), Path(config.output_dir)
    refuse_to_overwrite(output_dir, [TRACES_FILE, METRICS_FILE])
    dataset = load_dataset_config(run_dir)
    validation, test = load_test(dataset, config.eval.n_validation, config.eval.n_problems)
    records = [*validation, *test]

    source = config.policy_path or str(newest_checkpoint(run_dir))
    tokenizer = load_tokenizer(source)
    check_prompt_lengths(tokenizer, records, config.sampling.max_prompt_length)
    policy = on_best_device(load_policy(source, config.sampling.load_in_4bit, frozen=True))
    set_seed(config.seed)
    sampling_started = time.perf_counter()
    samples = sample(policy, tokenizer, records, config.sampling, progress_bar("sampling"))
    sampling_seconds = time.perf_counter() - sampling_started
    sequences = [sequence for group in samples for sequence in group]
    logprobs = score_by_length(
        sequences,
        lambda batch: token_logprobs(policy, batch),
        tokenizer.pad_token_id,
        config.sampling.batch_size,
        progress_bar("log-probabilities"),
        policy.device,
    )

    ends = end_ids(policy, tokenizer)
    scored = iter(zip(sequences, logprobs, strict=True))
    traces = []
    for position, (record, group) in enumerate(zip(records, samples, strict=True)):
        for number, (sequence, logps) in enumerate(next(scored) for _ in group):
            trace = _as_trace(tokenizer, record, sequence, logps, dataset.name == DatasetName.arithmetic)
            split = VALIDATION if position < len(validation) else TEST
            truncated = sequence.completion_ids[-1] not in ends
            traces.append({**trace, "sample": number, "split": split, "truncated": truncated})
    metrics: Metrics = {
        "supervision": _supervision(config),
        "policy": source,
        **summarise([trace for trace in traces if trace["split"] == TEST], config),
        "seconds": round(time.perf_counter() - started, 2),
        "tokens_per_second": round(sum(len(s.completion_ids) for s in sequences) / sampling_seconds, 1),
    }
    write_atomically(output_dir / TRACES_FILE, to_jsonl(traces))
    write_metrics(output_dir / METRICS_FILE, metrics)
    return metrics


def summarise(traces: Sequence[dict[str, Any]], config: EvalConfig) -> Metrics:
    """pass@k, majority, oracle, length (tokens) and form of traces, of which each problem has equally many."""
    n = config.sampling.n_samples
    groups: dict[str, list[dict[str, Any]]] = {}
    for trace in traces:
        groups.setdefault(trace["id"], []).append(trace)
    problems = list(groups.values())
    right = [sum(trace["correct"] for trace in group) for group in problems]
    summary = Summary(config.eval.bootstrap_draws, config.seed)
    for k in config.eval.ks:
        summary.mean(f"pass@{k}", [pass_at_k(count, n, k) for count in right])
    votes = [[_vote(trace) for trace in group] for group in problems]
    correct = [[trace["correct"] for trace in group] for group in problems]
    summary.mean(f"majority@{n}", [majority_at(keys, flags) for keys, flags in zip(votes, correct, strict=True)])
    summary.mean(f"oracle@{n}", [pass_at_k(count, n, n) for count in right])
    summary.mean("completion_length", [np.mean([len(trace["token_ids"]) for trace in group]) for group in problems])
    for share in ("format_ok", "truncated"):
        summary.mean(share, [np.mean([trace[share] for trace in group]) for group in problems])
    return {"n_problems": len(problems), "n_samples": n, **summary.metrics}


def _vote(trace: dict[str, Any]) -> Hashable | None:
    return vote(trace["answer"], AnswerKind(trace["answer_kind"]), trace["prompt"][-1]["content"])


def _as_trace(
    tokenizer: PreTrainedTokenizerBase,
    record: Record,
    sequence: TokenSequence,
    logprobs: list[float],
    is_arithmetic: bool,
) -> dict[str, Any]:
    completion = decode(tokenizer, sequence.completion_ids)
    answer = extract_answer(completion)
    return {
        "id": record.id,
        "prompt": record.prompt,
        "completion": completion,
        "answer": answer,
        "answer_kind": record.answer_kind.value,
        "reference": record.answer,
        "correct": is_right(answer, record.answer, record.answer_kind, record.question),
        "steps": [completion[start:end] for start, end in step_spans(completion)],
        # Only the embedded data has a checker of steps.
        "first_error_step": first_wrong_step(completion, record.target) if is_arithmetic else None,
        "token_rewards": None,
        "tokens": token_pieces(tokenizer, sequence.completion_ids),
        "score": None,
        "logprob": float(np.mean(logprobs)),
        "format_ok": is_well_formed(completion),
        "prompt_ids": list(sequence.prompt_ids),
        "token_ids": list(sequence.completion_ids),
        "token_logprobs": [round(value, 6) for value in logprobs],
    }


def _supervision(config: EvalConfig) -> str:
    if config.policy_path:  # the run says nothing about how another policy was made
        return "not declared"
    return SUPERVISION.get(str(load_run_config(Path(config.run_dir)).get("algorithm")), "not declared")


def to_jsonl(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def progress_bar(what: str) -> Progress:
    """A bar on a terminal, nothing in a log file."""
    return lambda slices: tqdm(slices, desc=what, unit="batch", disable=None)
