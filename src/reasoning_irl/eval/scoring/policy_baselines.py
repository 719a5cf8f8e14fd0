"""Baselines from policies: the log-probability and the negative entropy of each token.

Log-probabilities are carried to the reward model's tokens if the policy has another tokenizer. The policy then reads
its own tokens (the ids it sampled, if the file has them), and each log-probability is spread evenly over the
characters of its token. They are scaled so that the mean over a trace's tokens, the score of the trace, is exactly
the policy's own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.data.alignment import carry_sums, without_gaps
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.scoring.generation import (
    on_best_device,
    progress_bar,
    token_entropies,
    token_logprobs,
)
from reasoning_irl.eval.scoring.inputs import ScoringJob
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.metrics.traces import Floats, TokenValues, Values
from reasoning_irl.models.batches import score_by_length
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.text.token_spans import decode, spans_of, token_spans
from reasoning_irl.text.trace import Span


def policy_logprobs(job: ScoringJob) -> TokenValues | None:
    """log p(y_t | x, y_<t) under the policy, at the reward model's tokens (T,) of each trace.

    The file's own log-probabilities are used where it has them. None if some are unknown and there is no policy.
    """
    known = [trace.logprobs for trace in job.traces] + [None] * len(job.planted)
    policy = job.inputs.policy
    return _completed(known, []) if policy is None else _logprobs(job, policy, uses_file=True)


def sft_logprobs(job: ScoringJob) -> TokenValues | None:
    """log p(y_t | x, y_<t) under the policy after SFT, likewise; None without one."""
    return None if job.inputs.sft is None else _logprobs(job, job.inputs.sft, uses_file=False)


def _logprobs(job: ScoringJob, policy: str, *, uses_file: bool) -> TokenValues | None:
    """The log-probabilities under a policy; those in the file are of the policy that sampled it."""
    known = [trace.logprobs if uses_file else None for trace in job.traces] + [None] * len(job.planted)
    theirs = load_tokenizer(policy)
    if theirs.get_vocab() == job.tokenizer.get_vocab():
        return _completed(known, _missing_logprobs(job, policy, theirs, job.sequences, known))
    config, lines = job.config, {trace.line for trace in job.traces}
    read = read_traces(job.inputs.traces, theirs, config.eval.validation_share, config.seed, lines=lines)
    of_planted = job.sequences[len(job.traces) :]
    planted = _in_tokens_of(theirs, job, of_planted)
    known = [trace.logprobs if uses_file else None for trace in read] + [None] * len(planted)
    own = [trace.sequence for trace in read] + [sequence for sequence, _ in planted]
    values = _completed(known, _missing_logprobs(job, policy, theirs, own, known))
    if values is None:
        return None
    sources = [spans_of(trace.pieces) for trace in read] + [spans for _, spans in planted]
    targets = [spans_of(trace.pieces) for trace in job.traces]
    targets += [without_gaps(*token_spans(job.tokenizer, sequence.completion_ids)) for sequence in of_planted]
    ended = [sequence.completion_ids[-1] == job.tokenizer.eos_token_id for sequence in job.sequences]
    return [onto(*row) for row in zip(values, sources, targets, ended, strict=True)]


def onto(values: Values, source: Sequence[Span], target: Sequence[Span], ended: bool) -> list[float]:
    """Values (T,) at the tokens `source` of a text, as values (U,) with the same mean at the tokens `target`.

    `ended`: the last target token is the end token, which comes after the text.
    """
    length = max((end for _, end in target), default=0)
    places = [*target[:-1], (length, length + 1)] if ended else target
    scale = len(target) / len(values)
    return [scale * value for value in carry_sums(values, source, places, length + ended)]


def negative_entropies(job: ScoringJob) -> TokenValues | None:
    """Minus the entropy (nats) of the policy's next-token distribution at each token (T,): higher means surer.

    The file's `token_entropies` are used where they are of these tokens. None if some are unknown and there is no
    policy that reads the same tokens.
    """
    known: list[Floats | None] = [trace.entropies for trace in job.traces] + [None] * len(job.planted)
    missing = [index for index, values in enumerate(known) if values is None]
    if missing:
        policy = job.inputs.policy
        if policy is None or load_tokenizer(policy).get_vocab() != job.tokenizer.get_vocab():
            return None
        model = on_best_device(load_policy(policy, job.config.model.load_in_4bit, frozen=True).eval())
        entropies = score_by_length(
            [job.sequences[index] for index in missing],
            lambda batch: token_entropies(model, batch),
            job.tokenizer.pad_token_id,
            job.config.eval.batch_size,
            progress_bar("entropies"),
            model.device,
            is_shared=True,
        )
        for index, values in zip(missing, entropies, strict=True):
            known[index] = np.asarray(values)
    return [-values for values in known if values is not None]


def _missing_logprobs(
    job: ScoringJob,
    policy: str,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[TokenSequence],
    known: Sequence[Floats | None],
) -> TokenValues:
    """The policy's log-probabilities of the sequences without known ones."""
    unknown = [sequence for sequence, logprobs in zip(sequences, known, strict=True) if logprobs is None]
    if not unknown:
        return []
    model = on_best_device(load_policy(policy, job.config.model.load_in_4bit, frozen=True).eval())
    return score_by_length(
        unknown,
        lambda batch: token_logprobs(model, batch),
        tokenizer.pad_token_id,
        job.config.eval.batch_size,
        progress_bar("log-probabilities"),
        model.device,
        is_shared=True,
    )


def _completed(known: Sequence[Floats | None], missing: TokenValues) -> TokenValues | None:
    """`known` with its gaps filled from `missing`, in order; None if gaps are left."""
    rest = iter(missing)
    values = [next(rest, None) if logprobs is None else logprobs for logprobs in known]
    complete = [logprobs for logprobs in values if logprobs is not None]
    return complete if len(complete) == len(values) else None


def _in_tokens_of(
    theirs: PreTrainedTokenizerBase, job: ScoringJob, sequences: Sequence[TokenSequence]
) -> list[tuple[TokenSequence, list[Span]]]:
    """Sequences of the run's test problems in the tokens of `theirs`, with the spans of these in the text."""
    if not sequences or job.config.run_dir is None:
        return []
    _, records = load_test(load_dataset_config(Path(job.config.run_dir)), 0, None)
    prompts = {encode_prompt(job.tokenizer, record.prompt): encode_prompt(theirs, record.prompt) for record in records}
    found = []
    for sequence in sequences:
        text = decode(job.tokenizer, sequence.completion_ids)
        ids, spans = encode_completion(theirs, text, NO_LIMIT)
        if sequence.completion_ids[-1] != job.tokenizer.eos_token_id:
            ids, spans = ids[:-1], spans[:-1]
        found.append((TokenSequence(prompts[sequence.prompt_ids], ids), without_gaps(text, spans)))
    return found
