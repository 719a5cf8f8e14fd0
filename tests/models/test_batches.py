"""Scoring sequences in batches, against one sequence at a time."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import torch

from reasoning_irl.data.tokens import TokenBatch, TokenSequence
from reasoning_irl.models.batches import batches, score_by_length


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (7, 1)])
def test_batches_cover_everything_once(total: int, size: int) -> None:
    rows = batches(total, size)
    assert [at for chosen in rows for at in range(total)[chosen]] == list(range(total))
    assert all(0 < chosen.stop - chosen.start <= size for chosen in rows)
    assert len(rows) == -(-total // size)


def test_scores_come_back_in_order_without_padding(sequences: list[TokenSequence]) -> None:
    """Trap: batches are sorted by length; scores must return to their own sequences."""
    chosen = sequences[:9]
    assert len({len(s.completion_ids) for s in chosen}) > 2
    expected = [[1.5 * token for token in s.completion_ids] for s in chosen]
    for size in (1, 4, 20):
        seen: list[int] = []

        def progress(slices: Iterable[slice], seen: list[int] = seen) -> Iterable[slice]:
            for rows in slices:
                seen.append(rows.stop - rows.start)
                yield rows

        values = score_by_length(chosen, lambda batch: batch.completion_ids * 1.5, 0, size, progress)
        assert [of_tokens.tolist() for of_tokens in values] == expected
        assert sum(seen) == 9
    assert score_by_length([], lambda batch: batch.completion_ids, 0, 4, iter) == []


def test_batches_hold_sequences_of_similar_length(sequences: list[TokenSequence]) -> None:
    widths: list[set[int]] = []

    def score(batch: TokenBatch) -> torch.Tensor:
        widths.append(set(batch.attention_mask.sum(1).tolist()))
        return batch.completion_ids

    score_by_length(sequences[:12], score, 0, 4, iter)
    assert all(max(first) <= min(second) for first, second in pairwise(widths))


def test_scores_do_not_keep_their_batch_in_memory() -> None:
    """Trap: a slice of a batch keeps the whole batch alive, padding included."""
    pair = [TokenSequence((1,), (1,) * n) for n in (2, 50)]
    values = score_by_length(pair, lambda batch: batch.completion_ids * 1.5, 0, 2, iter)
    assert [(of_tokens.dtype, of_tokens.base) for of_tokens in values] == [(np.float32, None)] * 2
