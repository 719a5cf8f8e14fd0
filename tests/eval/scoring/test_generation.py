"""Sampling and scoring in batches, against one sequence at a time."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

from reasoning_irl.config.schema import Engine, SamplingConfig
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, collate, encode_prompt
from reasoning_irl.eval.scoring.generation import end_ids, sample, token_logprobs
from reasoning_irl.models.loading import load_policy

GREEDY = SamplingConfig(
    engine=Engine.transformers,
    n_samples=2,
    temperature=1e-6,  # so low that the likeliest token is always taken
    top_p=1.0,
    batch_size=5,
    load_in_4bit=False,
    max_prompt_length=200,
    max_completion_length=12,
)


def all_batches(slices: Iterable[slice]) -> Iterable[slice]:
    return slices


@pytest.fixture
def model(embedded_folder: Path) -> PreTrainedModel:
    return load_policy(str(embedded_folder))


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: tuple[int, ...], n: int) -> list[int]:
    """n likeliest tokens, one forward pass each, ignoring end tokens."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


# Sampling


def test_samples_belong_to_the_prompt_of_their_record(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    """Trap: batches are sorted by prompt length, and padding on the wrong side changes what is generated."""
    asked = records[:6]
    assert len({len(encode_prompt(tokenizer, record.prompt)) for record in asked}) > 2
    model.generation_config.eos_token_id = None
    found = sample(model, tokenizer, asked, GREEDY, all_batches)
    assert [len(group) for group in found] == [2] * 6
    for record, group in zip(asked, found, strict=True):
        prompt = encode_prompt(tokenizer, record.prompt)
        expected = greedy(model, prompt, 12)
        if tokenizer.eos_token_id in expected:
            expected = expected[: expected.index(tokenizer.eos_token_id) + 1]
        for sequence in group:
            assert sequence.prompt_ids == prompt
            assert list(sequence.completion_ids) == expected


def test_completion_ends_with_its_first_end_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    """Trap: padding kept after the end token, or an end token that only the model declares."""
    prompts = [encode_prompt(tokenizer, record.prompt) for record in records[:4]]
    whole = [greedy(model, prompt, 12) for prompt in prompts]
    end = whole[0][3]
    model.generation_config.eos_token_id = [end, tokenizer.eos_token_id]
    found = sample(model, tokenizer, records[:4], GREEDY, all_batches)
    for ids, group in zip(whole, found, strict=True):
        ends = [at for at, token in enumerate(ids) if token in (end, tokenizer.eos_token_id)]
        expected = ids[: ends[0] + 1] if ends else ids  # without an end token if there was no room for it
        assert [list(sequence.completion_ids) for sequence in group] == [expected] * 2
    assert len(found[0][0].completion_ids) <= 4


def test_prompts_are_run_once_and_ended_rows_are_not_run(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    """Trap: rows that have ended cost as much as the others until the longest one ends."""
    prompts = [encode_prompt(tokenizer, record.prompt) for record in records[:4]]
    wholes = [greedy(model, prompt, 12) for prompt in prompts]
    end = wholes[0][3]
    lengths = [whole.index(end) + 1 if end in whole else 12 for whole in wholes]
    assert len(set(lengths)) > 1
    model.generation_config.eos_token_id = end
    shapes: list[torch.Size] = []
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    found = sample(model, tokenizer, records[:4], replace(GREEDY, batch_size=8), all_batches)
    assert [[len(sequence.completion_ids) for sequence in group] for group in found] == [[n, n] for n in lengths]
    assert shapes[0] == (4, max(map(len, prompts)) - 1)
    assert all(width == 1 for _, width in shapes[1:])
    # Each group of four is a quarter of the rows at least, so no row is run after its end.
    assert sum(n_rows for n_rows, _ in shapes[1:]) == 2 * sum(lengths)


def test_equal_seeds_give_equal_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    warm = replace(GREEDY, temperature=1.0)
    runs = []
    for seed in (0, 0, 1):
        set_seed(seed)
        runs.append(sample(model, tokenizer, records[:3], warm, all_batches))
    assert runs[0] == runs[1] != runs[2]
    assert any(first != second for first, second in runs[0])  # the samples of a problem differ


@pytest.mark.parametrize(
    ("declared", "expected"), [(7, [2, 7]), ([7, 2, 9], [2, 7, 9]), (None, [2]), ([], [2]), (2, [2])]
)
def test_end_ids_are_those_of_tokenizer_and_model(
    declared: int | list[int] | None, expected: list[int], model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert tokenizer.eos_token_id == 2
    model.generation_config.eos_token_id = declared
    assert end_ids(model, tokenizer) == expected


# Scoring


def test_token_logprobs_are_zero_on_padding(model: PreTrainedModel, sequences: list[TokenSequence]) -> None:
    batch = collate(sequences[:5], 0)
    assert not batch.completion_mask.all()
    found = token_logprobs(model, batch)
    assert not found[batch.completion_mask == 0].any()
    assert (found[batch.completion_mask == 1] < 0).all()
