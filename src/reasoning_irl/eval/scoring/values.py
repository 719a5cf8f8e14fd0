"""The values that each method gives: one per token, or one score per trace."""

from collections.abc import Callable, Sequence

import numpy as np

from reasoning_irl.eval.scoring.generation import on_best_device, progress_bar
from reasoning_irl.eval.scoring.inputs import ScoringJob
from reasoning_irl.eval.scoring.policy_baselines import negative_entropies, policy_logprobs, sft_logprobs
from reasoning_irl.eval.scoring.scorers import tokenizer_folder
from reasoning_irl.eval.traces.labelled import Labelled
from reasoning_irl.eval.traces.trace_file import VALIDATION, Skipped, Trace
from reasoning_irl.metrics.traces import Floats, TokenValues
from reasoning_irl.models.batches import score_by_length
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger


def learnt_rewards(job: ScoringJob) -> TokenValues:
    """The reward model that is evaluated."""
    scorer = job.inputs.reward.load(job.tokenizer)
    return scorer(job.stepped, job.config.eval.batch_size, progress_bar("reward"))


def untrained_rewards(job: ScoringJob) -> TokenValues | None:
    """The same reward model before training; None without one that reads the same tokens."""
    folder = job.inputs.frozen
    if folder is None:
        return None
    own = tokenizer_folder(folder)  # a model without a tokenizer of its own is assumed to read the same tokens
    if own is not None and load_tokenizer(str(own)).get_vocab() != job.tokenizer.get_vocab():
        logger.warning("no untrained reward: %s has a different tokenizer from the reward model", folder)
        return None
    model = on_best_device(load_reward_model(folder, job.tokenizer, job.config.model.load_in_4bit))
    bar, size = progress_bar("untrained reward"), job.config.eval.batch_size
    pad_id = job.tokenizer.pad_token_id
    return score_by_length(job.sequences, model.rewards, pad_id, size, bar, model.device, is_shared=True)


# By the name in methods.METHODS. Each returns N arrays (T,), higher is better, or None if it lacks what it needs.
TOKEN_SCORERS: dict[str, Callable[[ScoringJob], TokenValues | None]] = {
    "reward": learnt_rewards,
    "frozen": untrained_rewards,
    "logprob": policy_logprobs,
    "entropy": negative_entropies,
    "sft": sft_logprobs,
}
# Sums of the standardised values of other methods: z(a) + z(b) + ..., with means and deviations of validation tokens.
COMBINATIONS = {
    "logprobs": ("logprob", "sft"),
    "reward_and_logprobs": ("reward", "logprob", "sft"),
}


# Likewise, for methods that score whole traces (N,) without a model.
TRACE_SCORERS: dict[str, Callable[[Labelled], Floats]] = {
    "length": lambda data: -data.lengths,
    "random": lambda data: np.zeros(len(data.traces)),  # a constant, because ties are settled by expectation
    "oracle": lambda data: data.correct.astype(np.float64),
}


def score_tokens(job: ScoringJob) -> dict[str, TokenValues | None]:
    """The values of every method in TOKEN_SCORERS and COMBINATIONS, by name."""
    values = {name: score(job) for name, score in TOKEN_SCORERS.items()}
    validation = [index for index, trace in enumerate(job.traces) if trace.split == VALIDATION]
    for name, parts in COMBINATIONS.items():
        values[name] = combined([values[part] for part in parts], validation)
    return values


def combined(parts: Sequence[TokenValues | None], validation: Sequence[int]) -> TokenValues | None:
    """The sum of the standardised values (T,) of each trace; None if a part is missing or there is no validation trace.

    Means and deviations are those of all tokens of the traces at the indices `validation`.
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not validation:
        return None
    sums = [np.zeros(len(of_trace)) for of_trace in known[0]]
    for part in known:
        tokens = np.concatenate([np.asarray(part[index], dtype=np.float64) for index in validation])
        for total, of_trace in zip(sums, part, strict=True):
            total += (np.asarray(of_trace, dtype=np.float64) - tokens.mean()) / (tokens.std() or 1.0)
    return sums


def score_traces(data: Labelled) -> dict[str, Floats]:
    """The scores (N,) of every method in TRACE_SCORERS, by name."""
    return {name: score(data) for name, score in TRACE_SCORERS.items()}


def drop_non_finite(
    traces: list[Trace], values: dict[str, TokenValues | None], skipped: Skipped
) -> tuple[list[Trace], dict[str, TokenValues | None]]:
    """Drops traces with a non-finite value, which would win or lose every comparison unnoticed.

    Raises DataError if a planted error has one (their values follow those of the traces), or if no trace is left.
    """
    dropped: set[int] = set()
    for method, of_sequences in values.items():
        for index, of_tokens in enumerate(of_sequences or []):
            finite = np.isfinite(of_tokens)
            if index in dropped or finite.all():
                continue
            token = int(np.argmin(finite))
            reason = f"is {of_tokens[token]} at token {token + 1}: check the model that computed it"
            if index >= len(traces):
                raise DataError(f"the {method} of planted error {index - len(traces) + 1} {reason}")
            skipped.add(traces[index].line, f"the {method} (problem {traces[index].problem!r}) {reason}")
            dropped.add(index)
    if not dropped:
        return traces, values
    kept = [trace for index, trace in enumerate(traces) if index not in dropped]
    if not kept:
        raise DataError(f"every trace was dropped: {skipped.summary()}")
    return kept, {
        method: None if known is None else [of_tokens for index, of_tokens in enumerate(known) if index not in dropped]
        for method, known in values.items()
    }
