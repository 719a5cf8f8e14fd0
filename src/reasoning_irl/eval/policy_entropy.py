"""The entropy baseline: how unsure the policy was at each token, with the sign turned, so that higher is better."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.evaluate import progress_bar
from reasoning_irl.eval.generation import on_best_device, score_by_length
from reasoning_irl.eval.metrics import Floats, TokenValues
from reasoning_irl.eval.trace_file import Trace
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.logprobs import token_logps


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
