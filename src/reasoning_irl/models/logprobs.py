"""Log-probabilities of completion tokens, with gradients, and with the same values on every backend.

The libraries' own versions differ (fused kernels that need a GPU, rows packed to the left, no gradients), and a
policy loss on (B, T) advantages needs column t to be completion token t.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reasoning_irl.data.tokens import TokenBatch

# Float32 log-probabilities in memory at once; larger batches are split, and recomputed for the gradient.
MAX_ELEMENTS = 2**26


def token_logps(
    model: nn.Module, tokens: TokenBatch, temperature: float = 1.0, max_elements: int = MAX_ELEMENTS
) -> tuple[Tensor, Tensor]:
    """(B, T) log p(y_t | x, y_<t) of softmax(logits / temperature), and (B, T) entropies in nats, without gradient.

    Values on padding are meaningless.
    """
    # Joined sequences are padded on the right, which causal attention never sees. So no mask is needed, which backends
    # might interpret differently, and fast kernels can be used.
    ids, columns = tokens.compact()  # (B, L), (B, T)
    first = int(tokens.prompt_mask.sum(1).min()) - 1  # the earliest position needed
    output: Any = model(input_ids=ids, logits_to_keep=ids.size(1) - first, use_cache=False)
    logits, following = output.logits[:, :-1], ids[:, first + 1 :]  # (B, S, V), (B, S)
    rows = max(1, max_elements // (following.size(1) * logits.size(-1)))
    parts = []
    for start in range(0, len(tokens), rows):
        arguments = (logits[start : start + rows], following[start : start + rows], temperature)
        in_parts = torch.is_grad_enabled() and rows < len(tokens)
        parts.append(checkpoint(_of_logits, *arguments, use_reentrant=False) if in_parts else _of_logits(*arguments))
    logps, entropies = (torch.cat(column).gather(1, columns - first - 1) for column in zip(*parts, strict=True))
    return logps, entropies


def _of_logits(logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    all_logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = all_logps.gather(-1, ids[..., None])[..., 0]
    with torch.no_grad():
        entropies = -(all_logps.exp() * all_logps).sum(-1)
    return chosen, entropies
