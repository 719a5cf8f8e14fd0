"""Samples completions from a policy, and computes token scores of sequences in batches."""

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
    """Samples `n_samples` completions per record, in the order of the records; batches group prompts by length.

    A completion includes its end token, unless it was truncated at the maximum length.
    """
    model.eval()
    prompts = [encode_prompt(tokenizer, record.prompt) for record in records]
    order = [i for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])) for _ in range(sampling.n_samples)]
    samples: list[list[TokenSequence]] = [[] for _ in records]
    ends = end_ids(model, tokenizer)
    generate: Any = model.generate  # typed as a tensor, because the base class does not define it
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
    """(B, T) log-probability of each completion token, 0 on padding. The batch must be on the model's device."""
    return token_logps(model, batch)[0] * batch.completion_mask


@torch.no_grad()
def token_entropies(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """(B, T) entropy of the policy, in nats, before each completion token. The batch must be on the model's device."""
    entropies = token_logps(model, batch)[1]
    assert entropies is not None  # the head of a loaded policy computes them
    return entropies


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


def on_best_device(module: Module) -> Module:
    """Moves the module to the GPU if there is one, and returns it."""
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return module


def batches(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All ids that end a completion: the tokenizer's, and those that the model declares (such as an end of turn)."""
    declared = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id} | set(declared if isinstance(declared, list) else [declared])
    return sorted(i for i in ids if i is not None)


def _until_end(ids: list[int], ends: list[int]) -> tuple[int, ...]:
    for at, token in enumerate(ids):
        if token in ends:
            return tuple(ids[: at + 1])
    return tuple(ids)


def progress_bar(what: str) -> Progress:
    """A progress bar on a terminal; nothing if the output is a log file."""
    return lambda slices: tqdm(slices, desc=what, unit="batch", disable=None)
