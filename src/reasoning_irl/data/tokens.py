"""Token sequences and batches: the only form in which traces reach a model.

A batch has TRL's layout, prompts padded on the left and completions on the right, so that column t of every
`(B, T)` tensor (rewards, advantages, log-probabilities) is completion token t for the policy and the reward model.
Completions keep the ids they were sampled with; text is never tokenised a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.records import Record
from reasoning_irl.text.trace import ChatMessage, Span
from reasoning_irl.utils.errors import DataError

NO_LIMIT = 10**9  # tokens; for a trace that is scored as long as it is


@dataclass(frozen=True)
class TokenSequence:
    """One prompt with one completion; a completion ends with the end token unless it was cut off."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class TokenBatch:
    """Sequences as tensors. `completion_mask` is 1 on the completion's own tokens, the end token among them."""

    prompt_ids: Tensor  # (B, P), left-padded
    prompt_mask: Tensor  # (B, P)
    completion_ids: Tensor  # (B, T), right-padded
    completion_mask: Tensor  # (B, T)

    @property
    def input_ids(self) -> Tensor:  # (B, P + T)
        return torch.cat([self.prompt_ids, self.completion_ids], dim=1)

    @property
    def attention_mask(self) -> Tensor:  # (B, P + T)
        return torch.cat([self.prompt_mask, self.completion_mask], dim=1)

    def __len__(self) -> int:
        return len(self.completion_ids)

    def __getitem__(self, rows: slice) -> "TokenBatch":
        return TokenBatch(
            self.prompt_ids[rows],
            self.prompt_mask[rows],
            self.completion_ids[rows],
            self.completion_mask[rows],
        )

    def compact(self) -> tuple[Tensor, Tensor]:
        """Ids (B, L) with prompt and completion joined and padded on the right, and where each completion token stands
        there (B, T).

        As wide as the longest sequence, not as the longest prompt and the longest completion together.
        """
        mask, ids = self.attention_mask, self.input_ids
        order = torch.argsort(mask, dim=1, descending=True, stable=True)
        width = int(mask.sum(1).max())
        start = self.prompt_mask.sum(1, keepdim=True)
        columns = start + torch.arange(self.completion_ids.size(1), device=ids.device)
        return ids.gather(1, order)[:, :width], columns.clamp(max=width - 1)

    def sequences(self) -> list[TokenSequence]:
        """The sequences without padding, on the CPU."""
        rows = zip(
            self.prompt_ids.tolist(),
            self.prompt_mask.tolist(),
            self.completion_ids.tolist(),
            self.completion_mask.tolist(),
            strict=True,
        )
        return [
            TokenSequence(
                tuple(t for t, keep in zip(prompt, p_mask, strict=True) if keep),
                tuple(t for t, keep in zip(completion, c_mask, strict=True) if keep),
            )
            for prompt, p_mask, completion, c_mask in rows
        ]


def collate(sequences: Sequence[TokenSequence], pad_id: int, device: torch.device | str = "cpu") -> TokenBatch:
    """Pads sequences to a batch."""

    def padded(rows: Sequence[tuple[int, ...]], left: bool) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            at = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, at] = torch.tensor(row, dtype=torch.long)
            mask[i, at] = 1
        return ids.to(device), mask.to(device)

    return TokenBatch(
        *padded([s.prompt_ids for s in sequences], left=True),
        *padded([s.completion_ids for s in sequences], left=False),
    )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: list[ChatMessage]) -> tuple[int, ...]:
    """The prompt as the policy sees it: the model's own chat template, up to where the assistant speaks."""
    rendered: Any = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return tuple(rendered["input_ids"])


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, trace: str, max_length: int
) -> tuple[tuple[int, ...], list[Span]]:
    """A trace's ids and their character spans, ended as a policy ends: with the end token, and nothing after.

    A trace longer than `max_length` is cut and gets no end token, like a sample that ran out of room.
    The end token has an empty span at the end of the text.
    """
    encoded = tokenizer(trace, add_special_tokens=False, return_offsets_mapping=True)
    ids = (*encoded["input_ids"], tokenizer.eos_token_id)
    spans = [*map(tuple, encoded["offset_mapping"]), (len(trace), len(trace))]
    return ids[:max_length], spans[:max_length]


def encode_record(
    tokenizer: PreTrainedTokenizerBase, record: Record, trace: str, max_completion_length: int
) -> TokenSequence:
    """A trace beside the record's own prompt."""
    completion_ids, _ = encode_completion(tokenizer, trace, max_completion_length)
    return TokenSequence(encode_prompt(tokenizer, record.prompt), completion_ids)


def check_prompt_lengths(tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], max_length: int) -> None:
    """Raises DataError for the first prompt longer than `max_length` tokens, before any training."""
    for record in records:
        length = len(encode_prompt(tokenizer, record.prompt))
        if length > max_length:
            raise DataError(
                f"the prompt of record {record.id} has {length} tokens, more than max_prompt_length={max_length}: "
                f"raise max_prompt_length to at least {length}, or leave the record out"
            )
