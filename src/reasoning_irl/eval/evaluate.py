"""Samples a policy on test problems, and writes the traces and the accuracy metrics."""

import hashlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase, set_seed

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.config.schema import MAX_SEED, Algorithm, AnswerKind, DatasetName, Engine, EvalConfig
from reasoning_irl.data.arithmetic import first_wrong_step
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, check_prompt_lengths, encode_prompt
from reasoning_irl.eval.scoring.generation import (
    end_ids,
    on_best_device,
    sample,
    token_logprobs,
)
from reasoning_irl.eval.scoring.vllm_engine import VLLMEngine
from reasoning_irl.eval.traces.resumable import PartialTraces
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION
from reasoning_irl.metrics.summary import Metrics, Summary, write_metrics
from reasoning_irl.metrics.traces import majority_at, pass_at_k
from reasoning_irl.model_card import NOT_DECLARED, SUPERVISION, refresh_run_card
from reasoning_irl.models.batches import batches, score_by_length
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.reward_model import RewardModel, load_reward_model
from reasoning_irl.rewards.checking import is_right, vote
from reasoning_irl.text.token_spans import decode, token_pieces
from reasoning_irl.text.trace import extract_answer, is_well_formed, step_spans
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.progress import progress
from reasoning_irl.utils.run_folder import (
    METRICS_FILE,
    PARTIAL_FILE,
    REWARD_MODEL,
    TRACES_FILE,
    check_not_evaluated,
    chosen_checkpoint,
    load_run_config,
    policy_of,
)

VLLM_BATCH = 4096  # sequences that are handed to vLLM at once; an interrupted evaluation loses as many
LARGEST_GAP = 0.1  # nats per token; half precision in two implementations gives about .01


def run_evaluation(config: EvalConfig) -> Metrics:
    """Writes traces.jsonl and metrics.json to `output_dir`; returns the metrics, which are of test problems only.

    If a previous call was interrupted, resumes with the remaining problems. Several processes share the problems, and
    the main one writes what a single process would.
    """
    started = time.perf_counter()
    run_dir, output_dir = Path(config.run_dir), Path(config.output_dir)
    if processes.is_main():
        check_not_evaluated(output_dir)
    processes.start()
    dataset = load_dataset_config(run_dir)
    source = config.policy_path or policy_of(chosen_checkpoint(run_dir, config.checkpoint))
    if source is None:
        raise UserError(
            f"{run_dir} trained no policy: score a traces file with {command('evaluate_irl.py')}, or set policy_path"
        )
    validation, test = load_test(dataset, config.eval.n_validation, config.eval.n_problems)
    records = [*validation, *test]

    tokenizer = load_tokenizer(source)
    check_prompt_lengths(tokenizer, records, config.sampling.max_prompt_length)
    partial: PartialTraces | None = None
    if processes.is_main():
        identity = _identity(config, source, records)
        partial = PartialTraces(output_dir / PARTIAL_FILE, identity, config.sampling.n_samples)
    sampler = Sampler(config, source, tokenizer, dataset.name == DatasetName.arithmetic)
    tokens_per_second = sampler.run(records, {record.id for record in validation}, partial)
    if partial is None:
        return processes.from_main({})
    metrics: Metrics = {
        "supervision": _supervision(config),
        "policy": source,
        **summarise([_light(row) for row in partial.rows([record.id for record in test])], config),
        "seconds": round(time.perf_counter() - started, 2),
        "tokens_per_second": tokens_per_second,
    }
    if (gap := sampler.logprob_gap()) is not None:
        metrics["engine_logprob_gap"] = gap
    partial.write(output_dir / TRACES_FILE, [record.id for record in records])
    write_metrics(output_dir / METRICS_FILE, metrics)
    partial.remove()
    refresh_run_card(run_dir, output_dir)
    return processes.from_main(metrics)


def _identity(config: EvalConfig, source: str, records: Sequence[Record]) -> dict[str, Any]:
    """What must be unchanged to resume an evaluation: policy, seed, sampling settings and problems."""
    problems = hashlib.sha256("\n".join(record.id for record in records).encode()).hexdigest()
    return {"policy": source, "seed": config.seed, "sampling": asdict(config.sampling), "problems": problems}


def _light(row: dict[str, Any]) -> dict[str, Any]:
    """The parts of a trace that the summary needs, without its tokens."""
    kept = ("id", "prompt", "answer", "answer_kind", "correct", "format_ok", "truncated")
    return {**{key: row[key] for key in kept}, "length": len(row["token_ids"])}


class Sampler:
    """Samples the policy in chunks of problems, and scores them with the run's reward model if it shares the tokenizer.

    Each chunk has its own seed, so that a resumed evaluation yields the same traces as an uninterrupted one.
    """

    def __init__(
        self, config: EvalConfig, source: str, tokenizer: PreTrainedTokenizerBase, is_arithmetic: bool
    ) -> None:
        self._config, self._tokenizer, self._is_arithmetic = config, tokenizer, is_arithmetic
        policy = load_policy(source, config.sampling.load_in_4bit, frozen=True).eval()
        self._ends = end_ids(policy, tokenizer)
        # Before CUDA starts in this process, because vLLM forks one of its own.
        self._vllm = VLLMEngine(source, config.sampling, self._ends) if config.sampling.engine == Engine.vllm else None
        self._gaps: list[float] = []  # nats per token, of each chunk of problems
        self._policy = on_best_device(policy)
        reward_folder = Path(source) / REWARD_MODEL
        self._reward: RewardModel | None = None
        if reward_folder.is_dir():
            reward = load_reward_model(reward_folder, in_4bit=config.sampling.load_in_4bit)
            if reward.tokenizer.get_vocab() == tokenizer.get_vocab():
                self._reward = on_best_device(reward)

    def run(self, records: Sequence[Record], validation: set[str], partial: PartialTraces | None) -> float:
        """Samples the problems missing from `partial`, grouped by prompt length; returns sampled tokens per second.

        Several processes take a chunk each at a time; `partial` is None in all but the main one, which writes.
        """
        sampling = self._config.sampling
        lengths = {record.id: len(encode_prompt(self._tokenizer, record.prompt)) for record in records}
        ordered = sorted(records, key=lambda record: lengths[record.id])
        n_sequences = sampling.batch_size if self._vllm is None else VLLM_BATCH
        chunks = [ordered[rows] for rows in batches(len(ordered), max(1, n_sequences // sampling.n_samples))]
        done = processes.from_main({record.id for record in records if partial is not None and partial.has(record.id)})
        if done:
            logger.info("resuming the evaluation: %d of %d problems are done", len(done), len(records))
        n_tokens, seconds = 0, 0.0
        for first in progress(range(0, len(chunks), processes.world_size()), "sampling"):
            number, rows, start = first + processes.rank(), [], time.perf_counter()
            if number < len(chunks) and any(record.id not in done for record in chunks[number]):
                seed = (self._config.seed * len(chunks) + number) % (MAX_SEED + 1)
                set_seed(seed)
                samples, known_logprobs = self._sample(chunks[number], seed)
                seconds += time.perf_counter() - start
                n_tokens += sum(len(sequence.completion_ids) for group in samples for sequence in group)
                rows = self._as_traces(chunks[number], samples, validation)
                if known_logprobs is not None:
                    self._gaps.append(_mean_gap(known_logprobs, [row["token_logprobs"] for row in rows]))
            for of_chunk in processes.gather([row for row in rows if row["id"] not in done]):
                if partial is not None and of_chunk:
                    partial.add(of_chunk)
        n_tokens, seconds = sum(processes.gather(n_tokens)), max(processes.gather(seconds))
        return round(n_tokens / seconds, 1) if seconds else 0.0

    def _sample(
        self, chunk: Sequence[Record], seed: int
    ) -> tuple[list[list[TokenSequence]], list[list[list[float]]] | None]:
        """Samples of each problem, and their tokens' log-probabilities if the engine gives them."""
        if self._vllm is None:
            return sample(self._policy, self._tokenizer, chunk, self._config.sampling, lambda slices: slices), None
        return self._vllm.sample([encode_prompt(self._tokenizer, record.prompt) for record in chunk], seed)

    def logprob_gap(self) -> float | None:
        """How far the engine's log-probabilities are from the policy's, in nats per token; None if it gives none.

        Warns if they are so far apart that the engine may have sampled another model.
        """
        if not self._gaps:
            return None
        gap = round(float(np.mean(self._gaps)), 4)
        if gap > LARGEST_GAP:
            logger.warning(
                "vLLM's log-probabilities are %.3f nats per token off the policy's: did it sample another model?",
                gap,
            )
        return gap

    def _as_traces(
        self, chunk: Sequence[Record], samples: Sequence[Sequence[TokenSequence]], validation: set[str]
    ) -> list[dict[str, Any]]:
        sequences = [sequence for group in samples for sequence in group]
        logprobs = self._score(sequences, lambda batch: token_logprobs(self._policy, batch))
        rewards = None if self._reward is None else self._score(sequences, self._reward.rewards)
        traces = []
        for i, sequence in enumerate(sequences):
            record, number = chunk[i // self._config.sampling.n_samples], i % self._config.sampling.n_samples
            trace = _as_trace(self._tokenizer, record, sequence, logprobs[i], self._is_arithmetic)
            if rewards is not None:
                trace["token_rewards"] = [round(value, 6) for value in rewards[i]]
                trace["score"] = float(np.mean(rewards[i]))
            split = VALIDATION if record.id in validation else TEST
            truncated = sequence.completion_ids[-1] not in self._ends
            traces.append({**trace, "sample": number, "split": split, "truncated": truncated})
        return traces

    def _score(self, sequences: Sequence[TokenSequence], score: Callable[[TokenBatch], Tensor]) -> list[list[float]]:
        pad_id, size = self._tokenizer.pad_token_id, self._config.sampling.batch_size
        scored = score_by_length(sequences, score, pad_id, size, lambda slices: slices, self._policy.device)
        return [values.tolist() for values in scored]


def _mean_gap(known: Sequence[Sequence[Sequence[float]]], computed: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference over the tokens of log-probabilities grouped by problem and those in a row."""
    flat = [logprobs for group in known for logprobs in group]
    return float(np.mean(np.abs(np.concatenate(flat) - np.concatenate(computed))))


def summarise(traces: Sequence[dict[str, Any]], config: EvalConfig) -> Metrics:
    """pass@k, majority, oracle, length (tokens) and format metrics of traces, with equally many for each problem."""
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
    summary.mean("completion_length", [np.mean([trace["length"] for trace in group]) for group in problems])
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
        # Only the embedded dataset has a step checker.
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
    if config.policy_path:  # the run does not know how another policy was trained
        return NOT_DECLARED
    algorithm = load_run_config(Path(config.run_dir)).get("algorithm")
    return SUPERVISION[Algorithm(algorithm)] if algorithm in list(Algorithm) else NOT_DECLARED
