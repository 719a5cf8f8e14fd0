from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_irl.data.tokens import TokenSequence, collate
from reasoning_irl.models.logprobs import token_logps


@pytest.fixture
def model(embedded_folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(embedded_folder)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_batch_of_unequal_prompts_matches_single_sequences(
    model: torch.nn.Module, sequences: list[TokenSequence], temperature: float
) -> None:
    """Trap: after packing rows to the left, column t is no longer completion token t."""
    chosen = sequences[:8]
    assert len({len(s.prompt_ids) for s in chosen}) > 1
    assert len({len(s.completion_ids) for s in chosen}) > 1
    logps, entropies = token_logps(model, collate(chosen, pad_id=0), temperature)
    for row, sequence in enumerate(chosen):
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        all_logps = torch.log_softmax(model(input_ids=ids).logits[0] / temperature, -1)
        length, start = len(sequence.completion_ids), len(sequence.prompt_ids)
        for t in range(length):
            at = all_logps[start + t - 1]
            torch.testing.assert_close(logps[row, t], at[sequence.completion_ids[t]], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(entropies[row, t], -(at.exp() * at).sum(), rtol=1e-4, atol=1e-5)


def test_computing_in_parts_gives_the_same_values_and_gradients(
    model: torch.nn.Module, sequences: list[TokenSequence]
) -> None:
    tokens = collate(sequences[:5], pad_id=0)
    results = []
    for max_elements in (2**26, 1):
        model.zero_grad()
        logps, entropies = token_logps(model, tokens, 0.9, max_elements)
        (logps * tokens.completion_mask).sum().backward()
        results.append([logps.detach(), entropies, *(p.grad.clone() for p in model.parameters())])
    for whole, in_parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, in_parts)
