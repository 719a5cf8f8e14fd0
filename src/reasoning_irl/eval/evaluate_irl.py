"""Scores traces with a reward model and its baselines, and measures how good the scores are.

Every choice (how token values become the score of a trace or of a step) is made on the validation split, separately
for each method; every reported figure is of the test split.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.config.schema import IRLEvalConfig, RewardKind
from reasoning_irl.data.tokens import NO_LIMIT
from reasoning_irl.eval.reports.correctness import (
    calibrate,
    report_correctness,
    report_positions,
    report_reliability,
)
from reasoning_irl.eval.reports.first_error import report_first_error
from reasoning_irl.eval.reports.page import balanced, write_run_report
from reasoning_irl.eval.reports.reranking import AGGREGATION_CHOICES, choose_reading, report_reranking
from reasoning_irl.eval.reports.tables import table, verdicts
from reasoning_irl.eval.scoring.inputs import ScoringJob, find_inputs
from reasoning_irl.eval.scoring.methods import OTHER, REWARD, WEIGHTING, is_method_metric
from reasoning_irl.eval.scoring.values import drop_non_finite, score_tokens, score_traces
from reasoning_irl.eval.traces.labelled import labelled
from reasoning_irl.eval.traces.labelled_errors import ErrorSet, LabelledError, natural_errors, planted_errors
from reasoning_irl.eval.traces.other_model import about, other_rewards
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Skipped, Trace, plain_rows, read_traces
from reasoning_irl.metrics.reading import EVALUATED
from reasoning_irl.metrics.summary import Metrics, Summary, read_metrics, write_metrics
from reasoning_irl.metrics.traces import Floats, TokenValues, Values
from reasoning_irl.model_card import refresh_run_card
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import (
    METRICS_FILE,
    PLANTED_FILE,
    SKIPPED_FILE,
    TRACES_FILE,
    load_run_config,
    name_in,
    refuse_to_overwrite,
    to_jsonl,
    write_atomically,
    write_lines_atomically,
)

# The first parts of the names of the other metrics that are written here.
OWN_METRICS = ("choice", "curve", "calibration", "position", "n_natural", "n_planted")
NO_PLANTED = "not scored: a traces file has no planted errors"


def run_irl_evaluation(config: IRLEvalConfig) -> Metrics:
    """Writes the scored traces.jsonl, metrics.json (merged with what is there) and report.html; returns the metrics.

    Several processes share the scoring, and the main one writes what a single process would.
    """
    processes.start()
    inputs, output_dir = find_inputs(config), Path(config.output_dir)
    target = output_dir / TRACES_FILE
    in_place = target.exists() and inputs.traces.exists() and target.samefile(inputs.traces)
    if not in_place and processes.is_main():
        refuse_to_overwrite(output_dir, [TRACES_FILE])
    tokenizer = inputs.reward.load_tokenizer()
    skipped = Skipped(inputs.traces, config.eval.on_error)
    traces = read_traces(
        inputs.traces,
        tokenizer,
        config.eval.validation_share,
        config.seed,
        window=inputs.window(tokenizer),
        skipped=skipped,
        system_prompt=inputs.reward.system_prompt,
    )
    of_other: dict[str, TokenValues | None] = {}
    if inputs.against is not None:
        traces, of_other[OTHER] = other_rewards(inputs.against, traces, skipped)
    _refuse_to_drop(skipped, in_place)
    planted = _planted(config, tokenizer, traces)
    job = ScoringJob(config, inputs, tokenizer, traces, [*planted.errors, *planted.sound])
    traces, values = drop_non_finite(traces, score_tokens(job) | of_other, skipped)
    _refuse_to_drop(skipped, in_place)
    if not processes.is_main():
        return processes.from_main({})

    summary = Summary(config.eval.bootstrap_draws, config.seed)
    if inputs.against is not None:
        summary.metrics |= about(inputs.against)
    summary.metrics |= {
        "choice/reward/kind": inputs.reward.kind.value,
        EVALUATED: name_in(output_dir, inputs.reward.name),
        "choice/reward/traces": name_in(output_dir, str(inputs.traces)),
        "n_skipped": len(skipped.reasons),
        "n_empty": sum(not trace.row["completion"].strip() for trace in traces),
    }
    # A sequence model's own score of a whole trace is its value at the last token.
    default = {REWARD: "last"} if inputs.reward.kind == RewardKind.sequence else {}
    scores = _report_traces(summary, traces, values, config.seed, default)
    _report_errors(summary, traces, planted, values)
    summary.metrics["choice/supervision"] = "the answer labels of the validation split choose how scores are read"

    # Drop what an earlier evaluation wrote, so that none of its notes outlives it.
    earlier = read_metrics(output_dir / METRICS_FILE).items()
    metrics = {key: value for key, value in earlier if not _is_own_metric(key)} | summary.metrics
    shown = _shown(traces, config.eval.report_traces, config.seed)
    write_lines_atomically(target, _scored_lines(inputs.traces, traces, values, scores, shown))
    write_metrics(output_dir / METRICS_FILE, metrics)
    _write_skipped(output_dir / SKIPPED_FILE, skipped)
    rewards = values[REWARD] or []
    write_atomically(
        output_dir / PLANTED_FILE, to_jsonl(_planted_rows(tokenizer, planted.errors, rewards[len(traces) :]))
    )
    if config.run_dir:
        refresh_run_card(Path(config.run_dir), output_dir)
    n_available = sum(trace.split == TEST for trace in traces)
    write_run_report(output_dir, metrics, list(shown.values()), n_available)
    print(table(metrics))
    if inputs.against is not None:
        print(f"\n{verdicts(metrics)}")
    if skipped.reasons:
        print(f"\nleft out {skipped.summary()}: see {output_dir / SKIPPED_FILE}")
    print(f"scored traces, metrics and report: {output_dir}")
    return processes.from_main(metrics)


def _planted(config: IRLEvalConfig, tokenizer: PreTrainedTokenizerBase, traces: list[Trace]) -> ErrorSet:
    if not config.run_dir or not config.eval.n_planted or not config.eval.planted_kinds:
        return ErrorSet()
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


def _refuse_to_drop(skipped: Skipped, in_place: bool) -> None:
    """Raises UserError if a file would be overwritten without some of its rows."""
    if in_place and skipped.reasons:
        raise UserError(f"scored in place, the file would lose {skipped.summary()}: set another output_dir=FOLDER")


def _report_traces(
    summary: Summary,
    traces: list[Trace],
    values: dict[str, TokenValues | None],
    seed: int,
    default: Mapping[str, str],
) -> dict[str, Floats]:
    """Reports how good each score of a whole trace is; returns the scores (N,) of all traces by method.

    `default`, by method, is the aggregation to use if the validation split cannot choose one.
    """
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
    for method, token_values in values.items():
        of_test[method] = of_validation[method] = None
        if token_values is not None:
            reading = choose_reading(
                [token_values[i] for i in at_validation], validation, default.get(method, AGGREGATION_CHOICES[0])
            )
            summary.metrics |= reading.as_metrics(method)
            scores[method] = reading.scores(token_values[: len(traces)], [trace.step_ids for trace in traces])
            of_test[method], of_validation[method] = scores[method][at_test], scores[method][at_validation]
    of_test |= score_traces(test)
    of_validation |= score_traces(validation)
    probabilities = calibrate(summary, of_test, of_validation, validation)
    report_correctness(summary, of_test, probabilities, test)
    weights = {method: probabilities[method] for method in of_test if method in WEIGHTING}
    report_reranking(summary, of_test, weights, test, seed)
    for method, token_values in values.items():
        report_reliability(summary, method, probabilities[method], test)
        report_positions(summary, method, token_values and [token_values[i] for i in at_test], test)
    return scores


def _report_errors(
    summary: Summary, traces: Sequence[Trace], planted: ErrorSet, values: Mapping[str, TokenValues | None]
) -> None:
    """Reports how well each method finds the first wrong step of natural errors and of planted ones."""
    natural, at_errors, at_sound, n_left_out = natural_errors(traces)
    why = "undefined: no test trace has a first_error_step that is in its text"
    report_first_error(summary, "natural", natural, _picked(values, at_errors, at_sound), why)
    summary.metrics["n_natural_left_out"] = n_left_out
    why = "undefined: no planted errors (they need run_dir and eval.n_planted)"
    sound_from = len(traces) + len(planted.errors)
    places = range(len(traces), sound_from), range(sound_from, sound_from + len(planted.sound))
    of_planted = _picked({**values, **({OTHER: None} if OTHER in values else {})}, *places)
    report_first_error(summary, "planted", planted, of_planted, why, {OTHER: NO_PLANTED})


def _picked(
    values: Mapping[str, TokenValues | None], at_errors: Sequence[int], at_sound: Sequence[int]
) -> dict[str, tuple[TokenValues, TokenValues] | None]:
    """The token values of the traces at two lists of indices, by method."""
    return {
        method: None if known is None else ([known[at] for at in at_errors], [known[at] for at in at_sound])
        for method, known in values.items()
    }


def _is_own_metric(name: str) -> bool:
    family, _, metric = name.partition("/")
    return bool(metric) and (is_method_metric(name) or family in OWN_METRICS)


def _write_skipped(path: Path, skipped: Skipped) -> None:
    """Writes line and reason of each row that was left out; no file if all were used."""
    path.unlink(missing_ok=True)
    if skipped.reasons:
        rows = [
            {"file": str(skipped.path), "line": line, "reason": why} for line, why in sorted(skipped.reasons.items())
        ]
        write_atomically(path, to_jsonl(rows))


def _shown(traces: Sequence[Trace], n: int, seed: int) -> dict[int, dict[str, Any]]:
    """An empty row for each test trace that the report shows, by index and in its order; filled in on writing."""
    light = [{"at": at, "correct": trace.correct} for at, trace in enumerate(traces) if trace.split == TEST]
    return {row["at"]: {} for row in balanced(light, n, seed)}


def _scored_lines(
    path: Path,
    traces: Sequence[Trace],
    values: dict[str, TokenValues | None],
    scores: dict[str, Floats],
    shown: dict[int, dict[str, Any]],
) -> Iterator[str]:
    """The lines of the scored file: the rows of `path`, read again, with their scores. Fills in the rows of `shown`."""
    rows = plain_rows(path, Skipped(path), {trace.line for trace in traces})
    for at, ((_, row), trace) in enumerate(zip(rows, traces, strict=True)):
        enriched = _enriched(row, trace, at, values, scores)
        if at in shown:
            shown[at] = enriched
        yield to_jsonl([enriched])


def _enriched(
    row: dict[str, Any], trace: Trace, at: int, values: dict[str, TokenValues | None], scores: dict[str, Floats]
) -> dict[str, Any]:
    """A row of the file with its scores."""
    rewards, logprobs = values[REWARD], values["logprob"]
    assert rewards is not None
    enriched = {
        **row,
        "split": trace.split,
        "tokens": trace.pieces,
        "token_rewards": rounded(rewards[at]),
        "score": float(scores[REWARD][at]),
    }
    if row.get("logprob") is None:
        enriched["logprob"] = None if logprobs is None else float(np.mean(logprobs[at], dtype=np.float64))
    return enriched


def rounded(values: Values) -> list[float]:
    """Values as files hold them: to six decimals."""
    digits: list[float] = np.round(np.asarray(values, dtype=np.float64), 6).tolist()
    return digits


def _planted_rows(
    tokenizer: PreTrainedTokenizerBase, errors: Sequence[LabelledError], rewards: TokenValues
) -> list[dict[str, Any]]:
    """The planted errors of the test split as rows of a traces file; `rewards` may go on after those of the errors."""
    rows = []
    for error, of_tokens in zip(errors, rewards, strict=False):
        if error.split == TEST:
            pieces = token_pieces(tokenizer, error.sequence.completion_ids)
            row = {"id": error.problem, "question": error.question, "completion": "".join(pieces), "correct": False}
            row |= {"first_error_step": error.step, "planted": error.kind, "split": TEST, "tokens": pieces}
            rows.append(row | {"token_rewards": rounded(of_tokens)})
    return rows
