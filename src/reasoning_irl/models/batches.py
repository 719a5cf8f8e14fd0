"""Token scores of sequences in batches of similar length."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate

Progress = Callable[[Iterable[slice]], Iterable[slice]]


def score_by_length(
    sequences: Sequence[TokenSequence],
    score: Callable[[TokenBatch], Tensor],
    pad_id: int,
    batch_size: int,
    progress: Progress,
    device: torch.device | str = "cpu",
) -> list[NDArray[np.float32]]:
    """One value per completion token (T,), in the order of the sequences; batches group sequences by length.

    `score` maps a batch on `device` to (B, T).
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].prompt_ids) + len(sequences[i].completion_ids))
    scored = [np.empty(0, dtype=np.float32)] * len(sequences)
    with torch.no_grad():
        for rows in progress(batches(len(order), batch_size)):
            chosen = [sequences[i] for i in order[rows]]
            values = score(collate(chosen, pad_id, device)).float().cpu().numpy()
            for i, sequence, row in zip(order[rows], chosen, values, strict=True):
                scored[i] = row[: len(sequence.completion_ids)].copy()  # a copy, so that the padded batch is freed
    return scored


def batches(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
