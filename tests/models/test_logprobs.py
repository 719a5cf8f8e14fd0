from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.logprobs import token_logps, with_fused_head


@pytest.fixture
def model(embedded_folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(embedded_folder)


def values_of(model: torch.nn.Module, tokens: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    logps, entropies = token_logps(model, tokens)
    assert entropies is not None
    return logps, entropies


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_batch_of_unequal_prompts_matches_single_sequences(
    model: torch.nn.Module, sequences: list[TokenSequence], temperature: float
) -> None:
    """Trap: after packing rows to the left, column t is no longer completion token t."""
    chosen = sequences[:8]
    assert len({len(s.prompt_ids) for s in chosen}) > 1
    assert len({len(s.completion_ids) for s in chosen}) > 1
    logps, entropies = values_of(with_fused_head(model, temperature), collate(chosen, pad_id=0))
    for row, sequence in enumerate(chosen):
        ids = torch.tensor([[*sequence.prompt_ids, *sequence.completion_ids]])
        all_logps = torch.log_softmax(model(input_ids=ids).logits[0] / temperature, -1)
        length, start = len(sequence.completion_ids), len(sequence.prompt_ids)
        for t in range(length):
            at = all_logps[start + t - 1]
            torch.testing.assert_close(logps[row, t], at[sequence.completion_ids[t]], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(entropies[row, t], -(at.exp() * at).sum(), rtol=1e-4, atol=1e-5)


def test_computing_in_parts_gives_the_same_values_and_gradients(
    model: torch.nn.Module, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = collate(sequences[:5], pad_id=0)
    with_fused_head(model, 0.9)
    results = []
    for max_elements in (2**26, 1):
        monkeypatch.setattr(cpu_logprobs, "MAX_ELEMENTS", max_elements)
        model.zero_grad()
        logps, entropies = values_of(model, tokens)
        (logps * tokens.completion_mask).sum().backward()
        results.append([logps.detach(), entropies.detach(), *(p.grad.clone() for p in model.parameters())])
    for whole, in_parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, in_parts)


def test_logits_of_a_whole_sequence_are_never_held(
    model: torch.nn.Module, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: with a vocabulary of 128k, the logits of a batch take more memory than the model."""
    tokens, n_most = collate(sequences[:5], pad_id=0), 20  # more than the hidden size: the output matrix is (16, V)
    monkeypatch.setattr(cpu_logprobs, "MAX_ELEMENTS", n_most * model.config.vocab_size)
    widest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal widest
            output = func(*args, **(kwargs or {}))
            for value in output if isinstance(output, tuple | list) else [output]:
                if isinstance(value, torch.Tensor) and value.size()[-1:] == (model.config.vocab_size,):
                    widest = max(widest, value.numel())
            return output

    with_fused_head(model)
    with Watch():
        logps, _ = token_logps(model, tokens)
        (logps * tokens.completion_mask).sum().backward()
    assert 0 < widest <= n_most * model.config.vocab_size


def test_model_that_cuts_its_input_is_noticed(model: torch.nn.Module, sequences: list[TokenSequence]) -> None:
    """Trap: a backend that cuts long inputs without an error shifts every reward."""
    with_fused_head(model)
    fused = model.forward
    model.forward = lambda input_ids, labels, **rest: fused(input_ids=input_ids[:, :-1], labels=labels[:, :-1], **rest)
    with pytest.raises(RuntimeError, match="has cut its input"):
        token_logps(model, collate(sequences[:2], pad_id=0))
