"""Scores sampled traces with a reward model and its baselines, and measures what the scores are worth.

Everything that is chosen (how token rewards become the score of a trace, and of a step) is chosen on the validation
split, for each method by itself; every reported figure is of the test split.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence
from reasoning_irl.eval.evaluate import progress_bar, to_jsonl
from reasoning_irl.eval.generation import on_best_device, score_by_length
from reasoning_irl.eval.localisation import Source, SteppedTrace, natural_errors, planted_errors, report_localisation
from reasoning_irl.eval.metrics import Floats
from reasoning_irl.eval.policy_entropy import negative_entropies
from reasoning_irl.eval.policy_logprobs import TokenValues, policy_logprobs
from reasoning_irl.eval.quality import calibrate, report_positions, report_quality, report_reliability
from reasoning_irl.eval.report import write_report
from reasoning_irl.eval.reranking import choose_reading, labelled, report_reranking
from reasoning_irl.eval.summary import Metrics, Summary, read_metrics, write_metrics
from reasoning_irl.eval.tables import table
from reasoning_irl.eval.trace_file import TEST, VALIDATION, Trace, read_traces
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.utils.errors import ConfigError, DataError
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

METHODS = ("reward", "frozen", "logprob", "entropy")  # those that score tokens
WHOLE = ("length", "random", "oracle")  # those that score traces
RULES = ("chance", "first_step", "last_step")  # those that name a step without a model
OTHERS = ("choice", "curve", "calibration", "position", "n_natural", "n_planted")
OWN_KEYS = (*METHODS, "length", "random", "oracle/", *RULES, *OTHERS)


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
    natural, at_errors, at_sound, n_left_out = natural_errors(traces)
    planted = _planted(config, tokenizer, traces)
    scored: list[Trace | SteppedTrace] = [*traces, *planted.errors, *planted.sound]
    values = _score_all(config, sources, tokenizer, traces, [trace.sequence for trace in scored])
    _refuse_infinite(values, [trace.problem for trace in scored])

    summary = Summary(config.eval.bootstrap_draws, config.seed)
    scores = _report_traces(summary, traces, values, config.seed)
    why = "undefined: no test trace has a first_error_step that its text shows"
    report_localisation(summary, "natural", natural, _picked(values, at_errors, at_sound), why)
    summary.metrics["n_natural_left_out"] = n_left_out
    why = "undefined: no planted errors (they need run_dir and eval.n_planted)"
    sound_from = len(traces) + len(planted.errors)
    places = range(len(traces), sound_from), range(sound_from, len(scored))
    report_localisation(summary, "planted", planted, _picked(values, *places), why)
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


def _planted(config: IRLEvalConfig, tokenizer: PreTrainedTokenizerBase, traces: list[Trace]) -> Source:
    if not config.run_dir or not config.eval.n_planted or not config.eval.planted_kinds:
        return Source()
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
    entropies = negative_entropies(config, sources.policy, tokenizer, traces, sequences)
    return {**values, "logprob": logprobs, "entropy": entropies}


def _picked(
    values: Mapping[str, TokenValues | None], at_errors: Sequence[int], at_sound: Sequence[int]
) -> dict[str, tuple[TokenValues, TokenValues] | None]:
    """The token values of the traces at two lists of places, by method."""
    return {
        method: None if known is None else ([known[at] for at in at_errors], [known[at] for at in at_sound])
        for method, known in values.items()
    }


def _refuse_infinite(values: Mapping[str, TokenValues | None], problems: Sequence[str]) -> None:
    """Raises DataError for a value that is not a finite number: it would win or lose every comparison unseen."""
    for method, of_sequences in values.items():
        for at, of_tokens in enumerate(of_sequences or []):
            if not np.isfinite(of_tokens).all():
                token = int(np.flatnonzero(~np.isfinite(of_tokens))[0])
                raise DataError(
                    f"the {method} of trace {at + 1} (problem {problems[at]!r}) is {of_tokens[token]} at token "
                    f"{token + 1}: check the model that gave it, or leave the trace out"
                )


def _report_traces(
    summary: Summary, traces: list[Trace], values: dict[str, TokenValues | None], seed: int
) -> dict[str, Floats]:
    """Reports what each score of a whole trace is worth; returns the scores (N,) of all traces by method."""
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
    of_validation: dict[str, Floats | None] = {}
    for method in METHODS:
        token_values = values[method]
        of_test[method] = of_validation[method] = None
        if token_values is not None:
            reading = choose_reading([token_values[i] for i in at_validation], validation)
            summary.metrics |= {f"choice/{method}/aggregation": reading.aggregation}
            summary.metrics |= {f"choice/{method}/aggregation/by": reading.by}
            scores[method] = reading.scores(token_values[: len(traces)], traces)
            of_test[method], of_validation[method] = scores[method][at_test], scores[method][at_validation]
    for of_split, data in ((of_test, test), (of_validation, validation)):
        # A constant for random: ties are settled by expectation.
        whole = (-data.lengths, np.zeros(len(data.traces)), data.correct.astype(np.float64))
        of_split |= dict(zip(WHOLE, whole, strict=True))
    probabilities = calibrate(summary, of_test, of_validation, validation)
    report_quality(summary, of_test, probabilities, test)
    voting = {method: probabilities[method] for method in of_test if method not in ("random", "oracle")}
    report_reranking(summary, of_test, voting, test, seed)
    for method in METHODS:
        token_values = values[method]
        report_reliability(summary, method, probabilities[method], test)
        report_positions(summary, method, token_values and [token_values[i] for i in at_test], test)
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
