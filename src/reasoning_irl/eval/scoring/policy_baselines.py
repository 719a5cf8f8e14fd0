"""The log-probability baseline: what the policy gives to each trace, at the tokens of the reward model.

Where the two have different tokenizers, the policy reads its own tokens (the ids it sampled, where the file has them),
and each log-probability is shared out over the characters of its token. They are scaled so that the mean over a
trace's tokens, the score of the trace, is exactly the policy's own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.compose import load_dataset_config
from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.data.alignment import carry_sums, without_gaps
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.scoring.generation import on_best_device, progress_bar, score_by_length, token_logprobs
from reasoning_irl.eval.traces.trace_file import Trace, read_traces
from reasoning_irl.metrics.traces import Floats, TokenValues, Values
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.text.token_spans import decode, spans_of, token_spans
from reasoning_irl.text.trace import Span


def policy_logprobs(
    config: IRLEvalConfig,
    file: Path,
    policy: str | None,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    sequences: Sequence[TokenSequence],
) -> TokenValues | None:
    """One value a token of each of the `sequences`, which are in the tokens of `tokenizer`.

    They are those of the `traces`, read from `file`, and then those of planted errors. Log-probabilities that the
    file names are taken; the others are the `policy`'s. None where some are unknown and there is no policy.
    """
    known = [trace.logprobs for trace in traces] + [None] * (len(sequences) - len(traces))
    if policy is None:
        return _completed(known, [])
    theirs = load_tokenizer(policy)
    if theirs.get_vocab() == tokenizer.get_vocab():
        return _completed(known, _missing(config, policy, tokenizer, sequences, known))
    lines = {trace.line for trace in traces}
    read = read_traces(file, theirs, config.eval.validation_share, config.seed, lines=lines)
    planted = _in_tokens_of(theirs, config, tokenizer, sequences[len(traces) :])
    known = [trace.logprobs for trace in read] + [None] * len(planted)
    own = [trace.sequence for trace in read] + [sequence for sequence, _ in planted]
    values = _completed(known, _missing(config, policy, theirs, own, known))
    if values is None:
        return None
    sources = [spans_of(trace.pieces) for trace in read] + [spans for _, spans in planted]
    targets = [spans_of(trace.pieces) for trace in traces]
    targets += [_spans(tokenizer, sequence) for sequence in sequences[len(traces) :]]
    ended = [sequence.completion_ids[-1] == tokenizer.eos_token_id for sequence in sequences]
    return [onto(*row) for row in zip(values, sources, targets, ended, strict=True)]


def onto(values: Values, source: Sequence[Span], target: Sequence[Span], ended: bool) -> list[float]:
    """Values (T,) at the tokens `source` of a text as values (U,) at the tokens `target`, with the same mean.

    `ended`: the last target token is the end token, which stands behind the text.
    """
    length = max((end for _, end in target), default=0)
    places = [*target[:-1], (length, length + 1)] if ended else target
    scale = len(target) / len(values)
    return [scale * value for value in carry_sums(values, source, places, length + ended)]


def _missing(
    config: IRLEvalConfig,
    policy: str,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[TokenSequence],
    known: Sequence[Floats | None],
) -> TokenValues:
    """The policy's log-probabilities of the sequences for which none are known."""
    unknown = [sequence for sequence, logprobs in zip(sequences, known, strict=True) if logprobs is None]
    if not unknown:
        return []
    model = on_best_device(load_policy(policy, config.model.load_in_4bit, frozen=True).eval())
    return score_by_length(
        unknown,
        lambda batch: token_logprobs(model, batch),
        tokenizer.pad_token_id,
        config.eval.batch_size,
        progress_bar("log-probabilities"),
        model.device,
    )


def _completed(known: Sequence[Floats | None], missing: TokenValues) -> TokenValues | None:
    rest = iter(missing)
    values = [next(rest, None) if logprobs is None else logprobs for logprobs in known]
    complete = [logprobs for logprobs in values if logprobs is not None]
    return complete if len(complete) == len(values) else None


def _in_tokens_of(
    theirs: PreTrainedTokenizerBase,
    config: IRLEvalConfig,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[TokenSequence],
) -> list[tuple[TokenSequence, list[Span]]]:
    """Sequences of the run's test problems in other tokens, with the places of these in the text."""
    if not sequences or config.run_dir is None:
        return []
    _, records = load_test(load_dataset_config(Path(config.run_dir)), 0, None)
    prompts = {encode_prompt(tokenizer, record.prompt): encode_prompt(theirs, record.prompt) for record in records}
    found = []
    for sequence in sequences:
        text = decode(tokenizer, sequence.completion_ids)
        ids, spans = encode_completion(theirs, text, NO_LIMIT)
        if sequence.completion_ids[-1] != tokenizer.eos_token_id:
            ids, spans = ids[:-1], spans[:-1]
        found.append((TokenSequence(prompts[sequence.prompt_ids], ids), without_gaps(text, spans)))
    return found


def _spans(tokenizer: PreTrainedTokenizerBase, sequence: TokenSequence) -> list[Span]:
    return without_gaps(*token_spans(tokenizer, sequence.completion_ids))


def negative_entropies(
    config: IRLEvalConfig,
    policy: str | None,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[Trace],
    sequences: Sequence[TokenSequence],  # those of the traces, then those of the planted errors
) -> TokenValues | None:
    """Minus the entropy in nats of the policy's next-token distribution at each token (T,) of each sequence.

    `token_entropies` of the file are taken where they are of these tokens; the others need a policy that reads the same
    tokens, and without one all are undefined (None).
    """
    known: list[Floats | None] = [trace.entropies for trace in traces] + [None] * (len(sequences) - len(traces))
    missing = [at for at, values in enumerate(known) if values is None]
    if missing:
        if policy is None or load_tokenizer(policy).get_vocab() != tokenizer.get_vocab():
            return None
        model = on_best_device(load_policy(policy, config.model.load_in_4bit, frozen=True).eval())
        entropies = score_by_length(
            [sequences[at] for at in missing],
            lambda batch: token_logps(model, batch)[1],
            tokenizer.pad_token_id,
            config.eval.batch_size,
            progress_bar("entropies"),
            model.device,
        )
        for at, values in zip(missing, entropies, strict=True):
            known[at] = np.asarray(values)
    return [-values for values in known if values is not None]
