"""The completion tokens at which the reward is read: sparse, step, interval or dense (arXiv 2510.01857).

A *read mask* marks those tokens. The discriminator's loss is taken at marked tokens, and a token's reward is the logit
at the first marked token at or after it ("back-filled"), so that one head serves every granularity.
"""

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from reasoning_irl.config.schema import Granularity

CLOSES, FULL_STOP, DIGIT = 1, 2, 4  # the token ends a step; ends one unless a digit follows; begins with a digit


def read_mask(
    completion_mask: Tensor, granularity: Granularity, interval: int, ends_step: Tensor | None = None
) -> Tensor:
    """(B, T) mask of the tokens at which the reward is read; the last token of a completion always is one.

    `ends_step` (B, T) marks tokens that end a sentence or a line; only granularity `step` needs it.
    """
    mask = completion_mask.bool()
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))
    match granularity:
        case Granularity.dense:
            return mask
        case Granularity.interval:
            position = torch.arange(1, mask.size(1) + 1, device=mask.device)
            return mask & ((position % interval == 0)[None, :] | last)
        case Granularity.step:
            if ends_step is None:
                raise ValueError("granularity `step` needs the mask of tokens that end a step")
            return mask & (ends_step.bool() | last)
        case Granularity.sparse:
            return last
        case _:
            assert_never(granularity)


def step_kinds(vocabulary_size: int, decode: Callable[[int], str]) -> Tensor:
    """(V,) flags CLOSES, FULL_STOP and DIGIT of each token, for `ends_step`."""

    def kind(text: str) -> int:
        closes = text.rstrip(" ").endswith((".", "!", "?")) or "\n" in text or "</think>" in text
        flag = 0 if not closes else FULL_STOP if text.endswith(".") and "\n" not in text else CLOSES
        return flag | (DIGIT if text[:1].isdigit() else 0)

    return torch.tensor([kind(decode(token)) for token in range(vocabulary_size)])


def ends_step(kinds: Tensor) -> Tensor:
    """(B, T) tokens that end a sentence, contain a line break or end the reasoning, from their `step_kinds` (B, T).

    A full stop before a digit ends nothing, so that decimals are not split, whether `3.5` is one token or three.
    """
    before_digit = torch.nn.functional.pad((kinds[:, 1:] & DIGIT) > 0, (0, 1))
    return ((kinds & CLOSES) > 0) | (((kinds & FULL_STOP) > 0) & ~before_digit)


def segment_ids(read: Tensor) -> Tensor:
    """(B, T) index of each token's segment; a segment ends with a marked token."""
    return torch.cumsum(read.int(), dim=1) - read.int()


def back_fill(values: Tensor, read: Tensor) -> Tensor:
    """(B, T) each token gets the value at the first marked token at or after it; tokens after the last one get 0."""
    n_segments = values.size(1) + 1
    at_mark = torch.zeros(values.size(0), n_segments, dtype=values.dtype, device=values.device)
    segments = segment_ids(read)
    at_mark.scatter_add_(1, segments, values * read)
    return at_mark.gather(1, segments)


def segment_mean(values: Tensor, read: Tensor, mask: Tensor) -> Tensor:
    """(B, T) the mean of `values` over the tokens of each token's segment."""
    segments = segment_ids(read)
    weight = mask.to(values.dtype)
    shape = (values.size(0), values.size(1) + 1)
    total = torch.zeros(shape, dtype=values.dtype, device=values.device).scatter_add(1, segments, values * weight)
    count = torch.zeros(shape, dtype=values.dtype, device=values.device).scatter_add(1, segments, weight)
    return (total / count.clamp(min=1)).gather(1, segments)
