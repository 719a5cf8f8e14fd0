"""Scores sampled traces with a reward model and its baselines, and measures what the scores are worth.

Everything that is chosen (how token rewards become the score of a trace, and of a step) is chosen on the validation
split, for each method by itself; every reported figure is of the test split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.config.schema import IRLEvalConfig, RewardKind
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence
from reasoning_irl.eval.reports.correctness import calibrate, report_positions, report_quality, report_reliability
from reasoning_irl.eval.reports.first_error import (
    LabelledError,
    Source,
    SteppedTrace,
    natural_errors,
    planted_errors,
    report_localisation,
)
from reasoning_irl.eval.reports.page import balanced, write_run_report
from reasoning_irl.eval.reports.reranking import AGGREGATION_CHOICES, OTHER, choose_reading, labelled, report_reranking
from reasoning_irl.eval.reports.tables import table, verdicts
from reasoning_irl.eval.scoring.generation import on_best_device, progress_bar, score_by_length
from reasoning_irl.eval.scoring.policy_baselines import negative_entropies, policy_logprobs
from reasoning_irl.eval.scoring.scorers import ScorerSource, Stepped, find_scorer, tokenizer_folder
from reasoning_irl.eval.traces.other_model import about, other_rewards, scored_traces
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Skipped, Trace, plain_rows, read_traces
from reasoning_irl.metrics.summary import Metrics, Summary, read_metrics, write_metrics
from reasoning_irl.metrics.traces import Floats, TokenValues, Values
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils.errors import ConfigError, DataError, UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import (
    INITIAL_REWARD_MODEL,
    METRICS_FILE,
    PLANTED_FILE,
    REWARD_MODEL,
    SKIPPED_FILE,
    TRACES_FILE,
    load_run_config,
    newest_checkpoint,
    refuse_to_overwrite,
    to_jsonl,
    write_atomically,
    write_lines_atomically,
)

METHODS = ("reward", OTHER, "frozen", "logprob", "entropy")  # those that score tokens
WHOLE = ("length", "random", "oracle")  # those that score traces
RULES = ("chance", "first_step", "last_step")  # those that name a step without a model
OTHERS = ("choice", "curve", "calibration", "position", "n_natural", "n_planted")
NO_PLANTED = "not scored: a traces file holds no values of planted errors"
OWN_KEYS = (*METHODS, "length", "random", "oracle/", *RULES, *OTHERS)


@dataclass(frozen=True)
class Sources:
    """What is read: the last three may be missing, and what they give with them."""

    traces: Path
    reward: ScorerSource
    frozen: Path | None
    policy: str | None
    against: Path | None  # the traces that another reward model scored


def run_irl_evaluation(config: IRLEvalConfig) -> Metrics:
    """Writes the scored traces.jsonl, metrics.json (merged into what is there) and report.html; returns the metrics."""
    sources, output_dir = find_sources(config), Path(config.output_dir)
    target = output_dir / TRACES_FILE
    in_place = target.exists() and sources.traces.exists() and target.samefile(sources.traces)
    if not in_place:
        refuse_to_overwrite(output_dir, [TRACES_FILE])
    tokenizer = sources.reward.load_tokenizer()
    skipped, window = Skipped(sources.traces, config.eval.on_error), _window(sources.reward, tokenizer)
    share, seed = config.eval.validation_share, config.seed
    system_prompt = sources.reward.system_prompt
    traces = read_traces(
        sources.traces, tokenizer, share, seed, window=window, skipped=skipped, system_prompt=system_prompt
    )
    known: dict[str, TokenValues | None] = {}
    if sources.against is not None:
        traces, known[OTHER] = other_rewards(sources.against, traces, skipped)
    _refuse_to_drop(skipped, in_place)
    planted = _planted(config, tokenizer, traces)
    scored: list[Trace | SteppedTrace] = [*traces, *planted.errors, *planted.sound]
    values = _score_all(config, sources, tokenizer, traces, scored) | known
    traces, values = _without_infinite(traces, values, skipped)
    _refuse_to_drop(skipped, in_place)
    natural, at_errors, at_sound, n_left_out = natural_errors(traces)

    summary = Summary(config.eval.bootstrap_draws, config.seed)
    if sources.against is not None:
        summary.metrics |= about(sources.against)
    summary.metrics["choice/reward/kind"] = sources.reward.kind.value
    n_empty = sum(not trace.row["completion"].strip() for trace in traces)
    summary.metrics |= {"n_skipped": len(skipped.reasons), "n_empty": n_empty}
    default = {"reward": "last"} if sources.reward.kind == RewardKind.sequence else {}  # there it is its own score
    scores = _report_traces(summary, traces, values, config.seed, default)
    why = "undefined: no test trace has a first_error_step that its text shows"
    report_localisation(summary, "natural", natural, _picked(values, at_errors, at_sound), why)
    summary.metrics["n_natural_left_out"] = n_left_out
    why = "undefined: no planted errors (they need run_dir and eval.n_planted)"
    sound_from = len(traces) + len(planted.errors)
    places = range(len(traces), sound_from), range(sound_from, sound_from + len(planted.sound))
    of_planted = _picked({**values, **dict.fromkeys(known)}, *places)
    report_localisation(summary, "planted", planted, of_planted, why, {OTHER: NO_PLANTED})
    summary.metrics["choice/supervision"] = "the answer labels of the validation split choose how scores are read"

    # What an earlier scoring wrote goes, so that none of its notes outlives it.
    earlier = read_metrics(output_dir / METRICS_FILE).items()
    kept = {key: value for key, value in earlier if "/" not in key or not key.startswith(OWN_KEYS)}
    metrics = {**kept, **summary.metrics}
    shown = _shown(traces, config.eval.report_traces, config.seed)
    write_lines_atomically(target, _scored_lines(sources.traces, traces, values, scores, shown))
    write_metrics(output_dir / METRICS_FILE, metrics)
    _write_skipped(output_dir / SKIPPED_FILE, skipped)
    rewards = values["reward"] or []
    write_atomically(
        output_dir / PLANTED_FILE, to_jsonl(_planted_rows(tokenizer, planted.errors, rewards[len(traces) :]))
    )
    n_available = sum(trace.split == TEST for trace in traces)
    write_run_report(output_dir, metrics, list(shown.values()), n_available)
    print(table(metrics))
    if sources.against is not None:
        print(f"\n{verdicts(metrics)}")
    if skipped.reasons:
        print(f"\nleft out {skipped.summary()}: see {output_dir / SKIPPED_FILE}")
    print(f"scored traces, metrics and report: {output_dir}")
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
    reward = model.reward_path or str(newest_checkpoint(Path(run_dir or ".")) / REWARD_MODEL)
    frozen, policy = Path(model.frozen_path) if model.frozen_path else None, model.policy_path
    if run_dir is not None:
        initial = run_dir / INITIAL_REWARD_MODEL
        frozen = frozen or (initial if initial.is_dir() else None)
        policy = policy or str(newest_checkpoint(run_dir))
    against = scored_traces(config.eval.against) if config.eval.against else None
    return Sources(traces, find_scorer(reward, model), frozen, policy, against)


def _has_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a reward model reads the tokens of `tokenizer`; one without a tokenizer of its own is taken to."""
    own = tokenizer_folder(folder)
    return own is None or load_tokenizer(str(own)).get_vocab() == tokenizer.get_vocab()


def _window(reward: ScorerSource, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that the reward model reads, from its configuration alone."""
    return min(reward.window or NO_LIMIT, tokenizer.model_max_length)


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
    scored: Sequence[Trace | SteppedTrace],  # the traces, then the planted errors
) -> dict[str, TokenValues | None]:
    """A value for every token of every trace in `scored`, by method; None for a method without a model."""
    size, sequences = config.eval.batch_size, [trace.sequence for trace in scored]
    stepped = [_stepped(tokenizer, trace) for trace in scored]
    rewards = sources.reward.load(tokenizer)(stepped, size, progress_bar("reward"))
    frozen = _frozen_rewards(config, sources.frozen, tokenizer, sequences)
    logprobs = policy_logprobs(config, sources.traces, sources.policy, tokenizer, traces, sequences)
    entropies = negative_entropies(config, sources.policy, tokenizer, traces, sequences)
    return {"reward": rewards, "frozen": frozen, "logprob": logprobs, "entropy": entropies}


def _stepped(tokenizer: PreTrainedTokenizerBase, trace: Trace | SteppedTrace) -> Stepped:
    pieces = trace.pieces if isinstance(trace, Trace) else token_pieces(tokenizer, trace.sequence.completion_ids)
    return Stepped(trace.sequence, pieces, trace.step_ids)


def _frozen_rewards(
    config: IRLEvalConfig, folder: Path | None, tokenizer: PreTrainedTokenizerBase, sequences: Sequence[TokenSequence]
) -> TokenValues | None:
    if folder is None:
        return None
    if not _has_tokenizer(folder, tokenizer):
        logger.warning("no frozen reward: %s has another tokenizer than the reward model", folder)
        return None
    model = on_best_device(load_reward_model(folder, tokenizer, config.model.load_in_4bit))
    bar = progress_bar("frozen reward")
    return score_by_length(sequences, model.rewards, tokenizer.pad_token_id, config.eval.batch_size, bar, model.device)


def _picked(
    values: Mapping[str, TokenValues | None], at_errors: Sequence[int], at_sound: Sequence[int]
) -> dict[str, tuple[TokenValues, TokenValues] | None]:
    """The token values of the traces at two lists of places, by method."""
    return {
        method: None if known is None else ([known[at] for at in at_errors], [known[at] for at in at_sound])
        for method, known in values.items()
    }


def _without_infinite(
    traces: list[Trace], values: dict[str, TokenValues | None], skipped: Skipped
) -> tuple[list[Trace], dict[str, TokenValues | None]]:
    """What is left without the traces that have a value which is no finite number, and so wins or loses unseen.

    Values go on beyond the traces with those of planted errors, of which each must be finite. Raises DataError.
    """
    infinite: set[int] = set()
    for method, of_sequences in values.items():
        for at, of_tokens in enumerate(of_sequences or []):
            finite = np.isfinite(of_tokens)
            if at in infinite or finite.all():
                continue
            token = int(np.argmin(finite))
            reason = f"is {of_tokens[token]} at token {token + 1}: check the model that gave it"
            if at >= len(traces):
                raise DataError(f"the {method} of planted error {at - len(traces) + 1} {reason}")
            skipped.add(traces[at].line, f"the {method} (problem {traces[at].problem!r}) {reason}")
            infinite.add(at)
    if not infinite:
        return traces, values
    kept = [trace for at, trace in enumerate(traces) if at not in infinite]
    if not kept:
        raise DataError(f"no trace is left of {skipped.summary()}")
    return kept, {
        method: None if known is None else [of_tokens for at, of_tokens in enumerate(known) if at not in infinite]
        for method, known in values.items()
    }


def _refuse_to_drop(skipped: Skipped, in_place: bool) -> None:
    """Raises UserError where a file would be written over with some of its rows missing."""
    if in_place and skipped.reasons:
        raise UserError(f"scored in place, the file would lose {skipped.summary()}: set another output_dir=FOLDER")


def _write_skipped(path: Path, skipped: Skipped) -> None:
    """Line and reason of each row that was left out; no file where all were used."""
    path.unlink(missing_ok=True)
    if skipped.reasons:
        rows = [
            {"file": str(skipped.path), "line": line, "reason": why} for line, why in sorted(skipped.reasons.items())
        ]
        write_atomically(path, to_jsonl(rows))


def _report_traces(
    summary: Summary,
    traces: list[Trace],
    values: dict[str, TokenValues | None],
    seed: int,
    default: Mapping[str, str],
) -> dict[str, Floats]:
    """Reports what each score of a whole trace is worth; returns the scores (N,) of all traces by method.

    `default` says, by method, how token values become a score where the validation split cannot.
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
    for method, token_values in values.items():
        report_reliability(summary, method, probabilities[method], test)
        report_positions(summary, method, token_values and [token_values[i] for i in at_test], test)
    return scores


def _shown(traces: Sequence[Trace], n: int, seed: int) -> dict[int, dict[str, Any]]:
    """Places of the test traces that the report shows, in its order; what it shows is filled in as it is written."""
    light = [{"at": at, "correct": trace.correct} for at, trace in enumerate(traces) if trace.split == TEST]
    return {row["at"]: {} for row in balanced(light, n, seed)}


def _scored_lines(
    path: Path,
    traces: Sequence[Trace],
    values: dict[str, TokenValues | None],
    scores: dict[str, Floats],
    shown: dict[int, dict[str, Any]],
) -> Iterator[str]:
    """The rows of the file, read anew, with what scoring adds, a line each; those that are `shown` are kept there."""
    rows = plain_rows(path, Skipped(path), {trace.line for trace in traces})
    for at, ((_, row), trace) in enumerate(zip(rows, traces, strict=True)):
        enriched = _enriched(row, trace, at, values, scores)
        if at in shown:
            shown[at] = enriched
        yield to_jsonl([enriched])


def _enriched(
    row: dict[str, Any], trace: Trace, at: int, values: dict[str, TokenValues | None], scores: dict[str, Floats]
) -> dict[str, Any]:
    """The row as it was in the file, with what scoring adds."""
    rewards, logprobs = values["reward"], values["logprob"]
    assert rewards is not None
    enriched = {
        **row,
        "split": trace.split,
        "tokens": trace.pieces,
        "token_rewards": rounded(rewards[at]),
        "score": float(scores["reward"][at]),
    }
    if row.get("logprob") is None:
        enriched["logprob"] = None if logprobs is None else float(np.mean(logprobs[at], dtype=np.float64))
    return enriched


def rounded(values: Values) -> list[float]:
    """As a file holds them: to six digits behind the point."""
    digits: list[float] = np.round(np.asarray(values, dtype=np.float64), 6).tolist()
    return digits


def _planted_rows(
    tokenizer: PreTrainedTokenizerBase, errors: Sequence[LabelledError], rewards: TokenValues
) -> list[dict[str, Any]]:
    """The planted errors of the test split as rows like those of the traces; `rewards` go on beyond the errors."""
    rows = []
    for error, of_tokens in zip(errors, rewards, strict=False):
        if error.split == TEST:
            pieces = token_pieces(tokenizer, error.sequence.completion_ids)
            row = {"id": error.problem, "question": error.question, "completion": "".join(pieces), "correct": False}
            row |= {"first_error_step": error.step, "planted": error.kind, "split": TEST, "tokens": pieces}
            rows.append(row | {"token_rewards": rounded(of_tokens)})
    return rows
