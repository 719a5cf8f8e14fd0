"""Token scores of sequences in batches of similar length."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate
from reasoning_irl.utils import processes

Progress = Callable[[Iterable[slice]], Iterable[slice]]


def score_by_length(
    sequences: Sequence[TokenSequence],
    score: Callable[[TokenBatch], Tensor],
    pad_id: int,
    batch_size: int,
    progress: Progress,
    device: torch.device | str = "cpu",
    is_shared: bool = False,
) -> list[NDArray[np.float32]]:
    """One value per completion token (T,), in the order of the sequences; batches group sequences by length.

    `score` maps a batch on `device` to (B, T). If it `is_shared`, all processes have the same sequences, and each
    computes its share of the batches.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].prompt_ids) + len(sequences[i].completion_ids))
    scored = [np.empty(0, dtype=np.float32)] * len(sequences)
    all_batches = batches(len(order), batch_size)
    own = all_batches[processes.rank() :: processes.world_size()] if is_shared else all_batches
    with torch.no_grad():
        for rows in progress(own):
            chosen = [sequences[i] for i in order[rows]]
            values = score(collate(chosen, pad_id, device)).float().cpu().numpy()
            for i, sequence, row in zip(order[rows], chosen, values, strict=True):
                scored[i] = row[: len(sequence.completion_ids)].copy()  # a copy, so that the padded batch is freed
    if is_shared:
        parts = processes.gather([[scored[i] for i in order[rows]] for rows in own])
        for first, part in enumerate(parts):
            for rows, values_of_batch in zip(all_batches[first :: len(parts)], part, strict=True):
                for i, of_sequence in zip(order[rows], values_of_batch, strict=True):
                    scored[i] = of_sequence
    return scored


def batches(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
