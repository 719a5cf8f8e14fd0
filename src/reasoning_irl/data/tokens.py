"""Token sequences and batches: the only form in which traces are passed to a model.

Batches have TRL's layout, prompts padded on the left and completions on the right, so that column t of every `(B, T)`
tensor (rewards, advantages, log-probabilities) is completion token t for the policy and the reward model. Completions
keep the ids they were sampled with; their text is never tokenised again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.records import Record
from reasoning_irl.text.trace import ChatMessage, Span
from reasoning_irl.utils.errors import DataError

NO_LIMIT = 10**9  # tokens; for traces that are scored at full length
# What one more pass over a micro-batch costs beside its tokens, as so many tokens more. Rough, and tried on a CPU only.
PASS_COST = 512


@dataclass(frozen=True)
class TokenSequence:
    """A prompt and a completion; the completion ends with the end token unless it was cut off."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class TokenBatch:
    """Sequences as tensors. `completion_mask` is 1 on the completion's tokens, including the end token."""

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

    def __getitem__(self, rows: slice | Tensor) -> "TokenBatch":
        return TokenBatch(
            self.prompt_ids[rows],
            self.prompt_mask[rows],
            self.completion_ids[rows],
            self.completion_mask[rows],
        )

    def take(self, rows: Tensor) -> "TokenBatch":
        """The rows with these indices, without the columns that none of them uses."""
        prompt_mask, completion_mask = self.prompt_mask[rows], self.completion_mask[rows]
        first = prompt_mask.size(1) - int(prompt_mask.sum(1).max())
        end = int(completion_mask.sum(1).max())
        return TokenBatch(
            self.prompt_ids[rows, first:],
            prompt_mask[:, first:],
            self.completion_ids[rows, :end],
            completion_mask[:, :end],
        )

    def by_length(self, size: int) -> list[Tensor]:
        """Indices of all rows in groups of at most `size`, the longest first, so that groups need little padding.

        A group ends early where its padding would cost more than another group.
        """
        lengths, order = self.attention_mask.sum(1).sort(descending=True, stable=True)
        sizes: list[int] = []
        longest = padding = 0
        for length in lengths.tolist():
            padding += longest - length
            if not sizes or sizes[-1] == size or padding > PASS_COST:
                sizes.append(0)
                longest, padding = length, 0
            sizes[-1] += 1
        return list(order.split(sizes))

    def compact(self) -> tuple[Tensor, Tensor]:
        """Joins prompts and completions, padded on the right: ids (B, L), and each completion token's column (B, T).

        L is the length of the longest sequence, not of the longest prompt plus the longest completion.
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
    """Pads sequences into a batch."""

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
    """The ids of a prompt in the model's chat template, up to the start of the assistant's turn.

    Raises DataError if the template cannot write it.
    """
    try:
        rendered: Any = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:  # the template is a program
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} cannot write a prompt ({str(error).splitlines()[0]}): use "
            "a model whose template takes the roles of the messages, or mend the template"
        ) from error
    return tuple(rendered["input_ids"])


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, trace: str, max_length: int
) -> tuple[tuple[int, ...], list[Span]]:
    """A trace's ids and their character spans, followed by the end token and nothing else, as a policy would end it.

    A trace longer than `max_length` is cut and gets no end token, like a truncated sample. The end token has an empty
    span at the end of the text.
    """
    encoded = tokenizer(trace, add_special_tokens=False, return_offsets_mapping=True)
    ids = (*encoded["input_ids"], tokenizer.eos_token_id)
    spans = [*map(tuple, encoded["offset_mapping"]), (len(trace), len(trace))]
    return ids[:max_length], spans[:max_length]


def encode_record(
    tokenizer: PreTrainedTokenizerBase, record: Record, trace: str, max_completion_length: int
) -> TokenSequence:
    """The record's prompt with `trace` as its completion."""
    completion_ids, _ = encode_completion(tokenizer, trace, max_completion_length)
    return TokenSequence(encode_prompt(tokenizer, record.prompt), completion_ids)


def check_prompt_lengths(tokenizer: PreTrainedTokenizerBase, records: Sequence[Record], max_length: int) -> None:
    """Raises DataError for the first prompt longer than `max_length` tokens."""
    for record in records:
        length = len(encode_prompt(tokenizer, record.prompt))
        if length > max_length:
            raise DataError(
                f"the prompt of record {record.id} has {length} tokens, more than max_prompt_length={max_length}: "
                f"raise max_prompt_length to at least {length}, or remove the record"
            )
