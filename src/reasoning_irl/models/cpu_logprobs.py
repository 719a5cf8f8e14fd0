"""Lets TRL's trainers run on a CPU.

TRL 1.15 computes per-token log-probabilities with a Triton kernel, and Triton has no CPU backend. This module replaces
it with an equivalent PyTorch function for CPU tensors; other tensors still use the kernel.
"""

from typing import Any

import torch
import trl.trainer.utils as trl_utils
from torch import Tensor
from torch.utils.checkpoint import checkpoint

KERNEL = "_ChunkedLogProbFunction"
MAX_ELEMENTS = 2**26  # float32 log-probabilities in memory at once


def install() -> None:
    """Wraps TRL's kernel; calling it again changes nothing."""
    if not isinstance(getattr(trl_utils, KERNEL), _ByDevice):
        setattr(trl_utils, KERNEL, _ByDevice(getattr(trl_utils, KERNEL)))


class _ByDevice:
    """Replaces the kernel, with the same interface."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def apply(self, hidden: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        if hidden.device.type == "cpu":
            return logprobs(hidden, *rest)
        return self._kernel.apply(hidden, *rest)


def logprobs(
    hidden: Tensor,  # (N, H)
    weight: Tensor,  # (V, H)
    bias: Tensor | None,  # (V,)
    targets: Tensor,  # (N,)
    temperature: float,
    chunk_size: int,  # noqa: ARG001 (the kernel's tiling; not needed here)
    softcap: float | None = None,
    logit_scale: float = 1.0,
    outputs: tuple[str, ...] = (),
) -> tuple[Tensor | None, ...]:
    """(log-probability, entropy, log sum p^2, mean logit, is-argmax) of the targets, each (N,) or None.

    All but the first are None unless named in `outputs`. Many tokens are computed in parts, and again for the gradient.
    """
    size = max(1, MAX_ELEMENTS // weight.size(0))
    if len(hidden) <= size:
        return _logprobs(hidden, weight, bias, targets, temperature, softcap, logit_scale, outputs)
    parts = [
        checkpoint(_logprobs, h, weight, bias, t, temperature, softcap, logit_scale, outputs, use_reentrant=False)
        for h, t in zip(hidden.split(size), targets.split(size), strict=True)
    ]
    return tuple(None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))


def _logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: tuple[str, ...],
) -> tuple[Tensor | None, ...]:
    logits = torch.nn.functional.linear(hidden, weight.to(hidden.dtype), bias).float() * logit_scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits / temperature
    all_logps = torch.log_softmax(logits, dim=-1)  # (N, V)
    chosen = all_logps.gather(-1, targets[:, None])[:, 0]
    with torch.no_grad():
        optional = {
            "log_sum_sq_probs": lambda: torch.logsumexp(2 * all_logps, dim=-1),
            "mean_logits": lambda: logits.mean(-1),
            "is_top1": lambda: logits.argmax(-1) == targets,
        }
        watched = [compute() if name in outputs else None for name, compute in optional.items()]
    entropy = -(all_logps.exp() * all_logps).sum(-1) if "entropy" in outputs else None
    return chosen, entropy, *watched
