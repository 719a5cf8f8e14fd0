"""Scores sampled traces with a reward model and its baselines, and measures what the scores are worth.

Everything that is chosen (how token rewards become the score of a trace, and of a step) is chosen on the validation
split, for each method by itself; every reported figure is of the test split.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence
from reasoning_irl.eval.evaluate import progress_bar, to_jsonl
from reasoning_irl.eval.generation import on_best_device, score_by_length
from reasoning_irl.eval.localisation import LabelledError, natural_errors, planted_errors, report_hits
from reasoning_irl.eval.metrics import Floats
from reasoning_irl.eval.policy_logprobs import TokenValues, policy_logprobs
from reasoning_irl.eval.report import write_report
from reasoning_irl.eval.reranking import (
    choose_aggregation,
    labelled,
    report_reranking,
    report_scores,
    trace_scores,
)
from reasoning_irl.eval.summary import Metrics, Summary, read_metrics, write_metrics
from reasoning_irl.eval.trace_file import TEST, VALIDATION, Trace, read_traces
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.utils.errors import ConfigError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import (
    FIGURES,
    INITIAL_REWARD_MODEL,
    METRICS_FILE,
    REPORT_FILE,
    REWARD_MODEL,
    TRACES_FILE,
    load_dataset_config,
    load_run_config,
    newest_checkpoint,
    refuse_to_overwrite,
    write_atomically,
)

METHODS = ("reward", "frozen", "logprob")  # those that score tokens
OWN_KEYS = (*METHODS, "length", "random", "chance", "first_step", "last_step", "choice", "curve", "reward_minus_")


@dataclass(frozen=True)
class Sources:
    """What is read: `frozen` and `policy` may be missing, and their baselines with them."""

    traces: Path
    reward: Path
    frozen: Path | None
    policy: str | None
    tokenizer: str


def run_irl_evaluation(config: IRLEvalConfig) -> Metrics:
    """Writes the scored traces.jsonl, metrics.json (merged into what is there) and report.html; returns the metrics."""
    sources, output_dir = find_sources(config), Path(config.output_dir)
    target = output_dir / TRACES_FILE
    if not (target.exists() and sources.traces.exists() and target.samefile(sources.traces)):
        refuse_to_overwrite(output_dir, [TRACES_FILE])
    tokenizer = load_tokenizer(sources.tokenizer)
    traces = read_traces(sources.traces, tokenizer, config.eval.validation_share, config.seed)
    natural, n_left_out = natural_errors(traces)
    planted = _planted(config, tokenizer, traces)
    sequences = [trace.sequence for trace in traces] + [error.sequence for error in planted]
    values = _score_all(config, sources, tokenizer, traces, sequences)

    summary = Summary(config.eval.bootstrap_draws, config.seed)
    scores = _report_traces(summary, traces, values, config.seed)
    why = "undefined: no test trace has a first_error_step that its text shows"
    at_natural = {m: v and [v[place] for place, _ in natural] for m, v in values.items()}
    report_hits(summary, "natural", [error for _, error in natural], at_natural, why)
    summary.metrics["n_natural_left_out"] = n_left_out
    why = "undefined: no planted errors (they need run_dir and eval.n_planted)"
    report_hits(summary, "planted", planted, {m: v and v[len(traces) :] for m, v in values.items()}, why)
    summary.metrics["choice/supervision"] = "the answer labels of the validation split choose how scores are read"

    # What an earlier scoring wrote goes, so that none of its notes outlives it.
    earlier = read_metrics(output_dir / METRICS_FILE).items()
    kept = {key: value for key, value in earlier if "/" not in key or not key.startswith(OWN_KEYS)}
    metrics = {**kept, **summary.metrics}
    rows = [_enriched(trace, at, values, scores) for at, trace in enumerate(traces)]
    write_atomically(target, to_jsonl(rows))
    write_metrics(output_dir / METRICS_FILE, metrics)
    write_run_report(output_dir, metrics, rows, config.eval.report_traces, config.seed)
    print(table(metrics))
    return metrics


def find_sources(config: IRLEvalConfig) -> Sources:
    """The paths as configured, each null taken from the run. Raises UserError where one is missing."""
    model = config.model
    run_dir = Path(config.run_dir) if config.run_dir else None
    if run_dir is None:
        for key, value in (("model.reward_path", model.reward_path), ("eval.traces", config.eval.traces)):
            if not value:
                raise ConfigError(f"without run_dir there must be {key}: give both, or set run_dir=FOLDER")
    traces = Path(config.eval.traces) if config.eval.traces else Path(run_dir or ".") / TRACES_FILE
    reward = Path(model.reward_path) if model.reward_path else newest_checkpoint(Path(run_dir or ".")) / REWARD_MODEL
    frozen, policy = Path(model.frozen_path) if model.frozen_path else None, model.policy_path
    if run_dir is not None:
        initial = run_dir / INITIAL_REWARD_MODEL
        frozen = frozen or (initial if initial.is_dir() else None)
        policy = policy or str(newest_checkpoint(run_dir))
    return Sources(traces, reward, frozen, policy, str(_tokenizer_folder(reward) or reward))


def _tokenizer_folder(reward: Path) -> Path | None:
    """Where a reward model's tokenizer is: in its folder, or in that of the checkpoint around it."""
    return next((folder for folder in (reward, reward.parent) if (folder / "tokenizer_config.json").is_file()), None)


def _has_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a reward model reads the tokens of `tokenizer`; one without a tokenizer of its own is taken to."""
    own = _tokenizer_folder(folder)
    return own is None or load_tokenizer(str(own)).get_vocab() == tokenizer.get_vocab()


def _planted(config: IRLEvalConfig, tokenizer: PreTrainedTokenizerBase, traces: list[Trace]) -> list[LabelledError]:
    if not config.run_dir or not config.eval.n_planted or not config.eval.planted_kinds:
        return []
    run = load_run_config(Path(config.run_dir))
    length = run.training.max_completion_length if "training" in run else NO_LIMIT
    return planted_errors(
        load_dataset_config(Path(config.run_dir)),
        tokenizer,
        traces,
        config.eval.planted_kinds,
        config.eval.n_planted,
        length,
        config.seed,
    )


def _score_all(
    config: IRLEvalConfig,
    sources: Sources,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    sequences: Sequence[TokenSequence],  # those of the traces, then those of the planted errors
) -> dict[str, TokenValues | None]:
    """A value for every token of every sequence, by method; None for a method without a model."""

    def rewards(folder: Path | None, name: str) -> TokenValues | None:
        if folder is None:
            return None
        if not _has_tokenizer(folder, tokenizer):
            logger.warning("no %s: %s has another tokenizer than the reward model", name, folder)
            return None
        model = on_best_device(load_reward_model(folder, tokenizer, config.model.load_in_4bit))
        size, bar = config.eval.batch_size, progress_bar(name)
        return score_by_length(sequences, model.rewards, tokenizer.pad_token_id, size, bar, model.device)

    values = {"reward": rewards(sources.reward, "reward"), "frozen": rewards(sources.frozen, "frozen reward")}
    logprobs = policy_logprobs(config, sources.traces, sources.policy, tokenizer, traces, sequences)
    return {**values, "logprob": logprobs}


def _report_traces(
    summary: Summary, traces: list[Trace], values: dict[str, TokenValues | None], seed: int
) -> dict[str, Floats]:
    """Reports reranking and AUROC; returns the scores (N,) of all traces by method."""
    test, at_test = labelled(traces, TEST)
    validation, at_validation = labelled(traces, VALIDATION)
    summary.metrics |= {
        "n_test_problems": len(test.members),
        "n_validation_problems": len(validation.members),
        "n_unlabelled": sum(trace.correct is None for trace in traces),
        "n_rerank": test.n_samples,
        "length/sign": "shorter is better",
    }
    scores: dict[str, Floats] = {}
    of_test: dict[str, Floats | None] = {}
    for method in METHODS:
        token_values = values[method]
        of_test[method] = None
        if token_values is not None:
            how, why = choose_aggregation([token_values[i] for i in at_validation], validation)
            summary.metrics |= {f"choice/{method}/aggregation": how, f"choice/{method}/aggregation/by": why}
            scores[method] = trace_scores(token_values[: len(traces)], traces, how)
            of_test[method] = scores[method][at_test]
    of_test["length"] = -test.lengths
    for method, chosen in of_test.items():
        report_scores(summary, method, chosen, test)
    report_reranking(summary, of_test, test, seed)
    return scores


def _enriched(
    trace: Trace, at: int, values: dict[str, TokenValues | None], scores: dict[str, Floats]
) -> dict[str, Any]:
    """The row as it was in the file, with what scoring adds."""
    rewards, logprobs = values["reward"], values["logprob"]
    assert rewards is not None
    row = {
        **trace.row,
        "split": trace.split,
        "tokens": trace.pieces,
        "token_rewards": [round(value, 6) for value in rewards[at]],
        "score": float(scores["reward"][at]),
    }
    if row.get("logprob") is None:
        row["logprob"] = None if logprobs is None else float(np.mean(logprobs[at]))
    return row


def write_run_report(output_dir: Path, metrics: Metrics, rows: list[dict[str, Any]], n_traces: int, seed: int) -> None:
    """report.html with the pictures that are there and up to `n_traces` test traces."""
    images = [(path.stem.replace("_", " "), path) for path in sorted((output_dir / FIGURES).glob("*.png"))]
    shown = balanced([row for row in rows if row["split"] == TEST], n_traces, seed)
    write_report(output_dir / REPORT_FILE, f"Evaluation of {output_dir}", summary_rows(metrics), shown, images)


def balanced(rows: Sequence[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """At most n rows in random order, half of them right and half wrong as far as there are enough of both."""
    shuffled = random.Random(f"report {seed}").sample(list(rows), len(rows))
    right = [row for row in shuffled if row["correct"]]
    wrong = [row for row in shuffled if not row["correct"]]
    n_right = min(len(right), max(n // 2, n - len(wrong)))
    chosen = right[:n_right] + wrong[: n - n_right]
    return random.Random(f"order {seed}").sample(chosen, len(chosen))


def summary_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """The metrics that have an interval, as rows of the report's table; baselines are named by method."""
    rows = []
    for name in (name for name in metrics if f"{name}/low" in metrics):
        method, _, metric = name.partition("/")
        if not metric:
            method, metric = ("policy", method)
        rows.append(
            {
                "method": method,
                "metric": metric,
                "value": metrics[name],
                "low": metrics[f"{name}/low"],
                "high": metrics[f"{name}/high"],
                "supervision": metrics.get("supervision"),
                "note": metrics.get(f"{name}/note") or metrics.get(f"{name}/verdict"),
            }
        )
    return rows


def table(metrics: Metrics) -> str:
    """One aligned text table, a line a method."""
    n = metrics["n_rerank"]
    columns = {
        f"rerank@1|{n}": f"rerank@1|{n}",
        "AUROC": "auroc",
        "within problem": "auroc_within_prompt",
        "hit planted": "first_error_hit@1/planted",
        "hit natural": "first_error_hit@1/natural",
    }
    lines = [["method", *columns]]
    for method in (*METHODS, "length", "random", "majority", "oracle", "chance", "first_step", "last_step"):
        cells = [metrics.get(f"{method}/{key}") for key in columns.values()]
        if method in ("majority", "oracle"):
            cells[0] = metrics.get(f"{method}@{n}")
        lines.append([method, *("-" if cell is None else f"{cell:.3f}" for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head = f"{metrics['n_test_problems']} test problems, supervision: {metrics.get('supervision', 'not declared')}"
    body = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([head, *body])
