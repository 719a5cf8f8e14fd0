"""Samples completions from a policy in batches, and computes the token scores of a batch."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from reasoning_irl.config.schema import SamplingConfig
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate, encode_prompt
from reasoning_irl.models.batches import Progress, batches
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.utils.progress import progress

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
    options = {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": ends,
    }
    for rows in progress(batches(len(order), sampling.batch_size)):
        chosen = order[rows]
        distinct = list(dict.fromkeys(chosen))
        batch = collate([TokenSequence(prompts[i], ()) for i in distinct], tokenizer.pad_token_id, model.device)
        prompt_of = torch.tensor([distinct.index(i) for i in chosen], device=model.device)
        completions = _completions(model, batch, prompt_of, sampling.max_completion_length, options)
        for i, ids in zip(chosen, completions, strict=True):
            samples[i].append(TokenSequence(prompts[i], _until_end(ids, ends)))
    return samples


def _completions(
    model: PreTrainedModel, prompts: TokenBatch, prompt_of: Tensor, max_length: int, options: dict[str, Any]
) -> list[list[int]]:
    """The ids of completions of the prompts with these indices (B,), as `model.generate` samples them with `options`.

    A prompt is run once for all its completions, and rows that have ended leave the batch in groups, where
    `model.generate` would run them until the longest one ends. What follows an end token is padding.
    """
    ids, mask, start = prompts.prompt_ids, prompts.prompt_mask, prompts.prompt_ids.size(1)
    cache = DynamicCache(config=model.config)
    if start > 1:  # the last token is run by `generate`
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache,
            logits_to_keep=1,
        )
    ids, mask = ids[prompt_of], mask[prompt_of]
    cache.batch_select_indices(prompt_of)
    ends = torch.tensor(options["eos_token_id"], dtype=torch.long, device=ids.device)
    completions: list[list[int]] = [[] for _ in prompt_of]
    running = torch.arange(len(prompt_of), device=ids.device)
    generate: Any = model.generate  # typed as a tensor, because the base class does not define it
    while len(running):
        ids = generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=start + max_length - ids.size(1),
            stopping_criteria=StoppingCriteriaList([_SomeHaveEnded(ends)]),
            **options,
        )
        is_over = torch.isin(ids[:, start:], ends).any(1) | (ids.size(1) == start + max_length)
        for row, sequence in zip(running[is_over].tolist(), ids[is_over, start:].tolist(), strict=True):
            completions[row] = sequence
        kept = (~is_over).nonzero()[:, 0]
        running, ids = running[kept], ids[kept]
        mask = nn.functional.pad(mask[kept], (0, ids.size(1) - mask.size(1)), value=1)
        cache.batch_select_indices(kept)
    return completions


class _SomeHaveEnded(StoppingCriteria):
    """Stops generation of the whole batch once a quarter of its rows have ended.

    Dropping each row at once would copy the cache of all others at every end.
    """

    def __init__(self, ends: Tensor) -> None:
        self._ends = ends
        self._has_ended: Tensor | None = None  # (B,)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # noqa: ARG002 (the library's signature)
        ends = torch.isin(input_ids[:, -1], self._ends)
        self._has_ended = ends if self._has_ended is None else self._has_ended | ends
        return (self._has_ended.float().mean() >= 0.25).expand(len(input_ids))


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


def on_best_device(module: Module) -> Module:
    """Moves the module to the GPU if there is one, and returns it."""
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return module


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
    """Shows how far a loop over batches is."""
    return lambda slices: progress(list(slices), what)
