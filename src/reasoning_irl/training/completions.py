"""Logs a few policy samples with their token rewards every few steps, to a local file and a W&B table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.tokens import TokenBatch
from reasoning_irl.rewards.verifiable import row_is_right
from reasoning_irl.text.token_spans import decode, token_pieces
from reasoning_irl.tracking import log_histogram, log_table
from reasoning_irl.utils.processes import is_main


class CompletionsLog:
    """Appends samples to a JSON lines file, and logs the same rows to W&B."""

    def __init__(self, path: Path, every: int, n: int) -> None:
        self._path = path
        self._every = every
        self._n = n

    def write(
        self,
        step: int,
        tokenizer: PreTrainedTokenizerBase,
        batch: TokenBatch,
        records: Sequence[Mapping[str, Any]],  # (B,) the data set's row of each
        token_rewards: Tensor | None,  # (B, T)
        advantages: Tensor,  # (B, T), or (B,) if all tokens of a trace share one
    ) -> None:
        """Logs the first rows of a batch, and to W&B a histogram of all rewards, if this step is to be logged.

        Of several processes, the main one logs its own samples.
        """
        if self._n == 0 or step % self._every or not is_main():
            return
        rows = completion_rows(step, tokenizer, batch[: self._n], records, token_rewards, advantages)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A cell of a W&B table cannot be a list, so lists are written as text.
        log_table("completions", [{**row, **_as_text(row)} for row in rows], step)
        if token_rewards is not None:
            log_histogram("policy/token_rewards", token_rewards[batch.completion_mask.bool()].tolist(), step)


def completion_rows(
    step: int,
    tokenizer: PreTrainedTokenizerBase,
    batch: TokenBatch,
    records: Sequence[Mapping[str, Any]],
    token_rewards: Tensor | None,
    advantages: Tensor,
) -> list[dict[str, Any]]:
    """One row per sequence of the batch (`records` may go on after them).

    It has prompt, completion, whether it is correct, tokens with their rewards and advantages, and the mean reward.
    """
    rows = []
    for i, sequence in enumerate(batch.sequences()):
        length = len(sequence.completion_ids)
        rewards = None if token_rewards is None else token_rewards[i, :length].tolist()
        completion = decode(tokenizer, sequence.completion_ids)
        rows.append(
            {
                "step": step,
                "prompt": decode(tokenizer, sequence.prompt_ids),
                "completion": completion,
                "correct": row_is_right(completion, records[i]),
                "reward": None if rewards is None else sum(rewards) / max(length, 1),
                "tokens": token_pieces(tokenizer, sequence.completion_ids),
                "token_rewards": None if rewards is None else [round(value, 4) for value in rewards],
                "advantages": [round(value, 4) for value in advantages[i].expand(length).tolist()]
                if advantages.dim() == 1
                else [round(value, 4) for value in advantages[i, :length].tolist()],
            }
        )
    return rows


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(row[key], ensure_ascii=False) for key in ("tokens", "token_rewards", "advantages")}
