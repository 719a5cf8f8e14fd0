"""Sampling a policy on problems, and the log-probability it gives to any trace."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_irl.config.schema import SamplingConfig
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate, encode_prompt
from reasoning_irl.models.logprobs import token_logps

Progress = Callable[[Iterable[slice]], Iterable[slice]]
Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    sampling: SamplingConfig,
    progress: Progress,
) -> list[list[TokenSequence]]:
    """`n_samples` completions a record, in the records' order; batches hold prompts of similar length.

    A completion ends with its end token, or without one where it ran out of room.
    """
    model.eval()
    prompts = [encode_prompt(tokenizer, record.prompt) for record in records]
    order = [i for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])) for _ in range(sampling.n_samples)]
    samples: list[list[TokenSequence]] = [[] for _ in records]
    ends = end_ids(model, tokenizer)
    generate: Any = model.generate  # its declared type is that of a tensor: the base class does not have it
    for rows in progress(batches(len(order), sampling.batch_size)):
        chosen = order[rows]
        batch = collate([TokenSequence(prompts[i], ()) for i in chosen], tokenizer.pad_token_id, model.device)
        output = generate(
            input_ids=batch.prompt_ids,
            attention_mask=batch.prompt_mask,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_completion_length,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=ends,
        )
        for i, ids in zip(chosen, output[:, batch.prompt_ids.size(1) :].tolist(), strict=True):
            samples[i].append(TokenSequence(prompts[i], _until_end(ids, ends)))
    return samples


@torch.no_grad()
def token_logprobs(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """(B, T) log-probability of each completion token, 0 on padding; the batch is on the model's device."""
    return token_logps(model, batch)[0] * batch.completion_mask


def score_by_length(
    sequences: Sequence[TokenSequence],
    score: Callable[[TokenBatch], Tensor],
    pad_id: int,
    batch_size: int,
    progress: Progress,
    device: torch.device | str = "cpu",
) -> list[NDArray[np.float32]]:
    """One value a completion token (T,), in the sequences' order; batches hold sequences of similar length.

    `score` maps a batch on `device` to (B, T).
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].prompt_ids) + len(sequences[i].completion_ids))
    scored = [np.empty(0, dtype=np.float32)] * len(sequences)
    with torch.no_grad():
        for rows in progress(batches(len(order), batch_size)):
            chosen = [sequences[i] for i in order[rows]]
            values = score(collate(chosen, pad_id, device)).float().cpu().numpy()
            for i, sequence, row in zip(order[rows], chosen, values, strict=True):
                scored[i] = row[: len(sequence.completion_ids)].copy()  # without the padding of its batch
    return scored


def on_best_device(module: Module) -> Module:
    """The module on the GPU where there is one."""
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return module


def batches(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every id that ends a completion: the tokenizer's, and those the model declares (an end of turn, say)."""
    declared = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id} | set(declared if isinstance(declared, list) else [declared])
    return sorted(i for i in ids if i is not None)


def _until_end(ids: list[int], ends: list[int]) -> tuple[int, ...]:
    for at, token in enumerate(ids):
        if token in ends:
            return tuple(ids[: at + 1])
    return tuple(ids)


def progress_bar(what: str) -> Progress:
    """A bar on a terminal, nothing in a log file."""
    return lambda slices: tqdm(slices, desc=what, unit="batch", disable=None)
