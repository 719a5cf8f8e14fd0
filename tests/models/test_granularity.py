import random

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from reasoning_irl.config.schema import Granularity
from reasoning_irl.models.granularity import back_fill, ends_step, read_mask, segment_mean, step_kinds

MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
ENDS = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0]])

READ = {  # by hand: interval 2 reads tokens 2, 4, 6; the last token is always read, padding never
    Granularity.dense: MASK.tolist(),
    Granularity.sparse: [[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.interval: [[0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.step: [[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]],
}
VALUES = torch.tensor([[1.0, 2, 3, 4, 5, 6], [1, 2, 3, 4, 77, 77], [1, 77, 77, 77, 77, 77]])
FILLED = {  # each token takes the value of the next one that is read
    Granularity.dense: [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.sparse: [[6, 6, 6, 6, 6, 6], [4, 4, 4, 4, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.interval: [[2, 2, 4, 4, 6, 6], [2, 2, 4, 4, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.step: [[2, 2, 4, 4, 6, 6], [3, 3, 3, 4, 0, 0], [1, 0, 0, 0, 0, 0]],
}
MEANS = {  # the mean over the tokens up to and including the next one that is read
    Granularity.dense: FILLED[Granularity.dense],
    Granularity.sparse: [[3.5] * 6, [2.5] * 4 + [0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.interval: [[1.5, 1.5, 3.5, 3.5, 5.5, 5.5], [1.5, 1.5, 3.5, 3.5, 0, 0], [1, 0, 0, 0, 0, 0]],
    Granularity.step: [[1.5, 1.5, 3.5, 3.5, 5.5, 5.5], [2, 2, 2, 4, 0, 0], [1, 0, 0, 0, 0, 0]],
}


@pytest.mark.parametrize("granularity", list(Granularity))
def test_granularities_by_hand(granularity: Granularity) -> None:
    read = read_mask(MASK, granularity, 2, ENDS)
    assert read.int().tolist() == READ[granularity]
    assert back_fill(VALUES, read).tolist() == FILLED[granularity]
    means = segment_mean(VALUES, read, MASK)
    torch.testing.assert_close(means * MASK, torch.tensor(MEANS[granularity], dtype=torch.float32))


def test_granularity_step_needs_the_ends_of_steps() -> None:
    with pytest.raises(ValueError, match="step"):
        read_mask(MASK, Granularity.step, 2)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_granularities_match_brute_force(granularity: Granularity) -> None:
    rng = random.Random(0)
    for _ in range(40):
        width, interval = rng.randint(1, 12), rng.randint(1, 5)
        lengths = [rng.randint(1, width) for _ in range(3)]
        mask = torch.tensor([[int(t < n) for t in range(width)] for n in lengths])
        ends = torch.tensor([[rng.random() < 0.3 for _ in range(width)] for _ in lengths])
        values = torch.randn(3, width)
        read = read_mask(mask, granularity, interval, ends)
        filled, means = back_fill(values, read), segment_mean(values, read, mask)
        for row, length in enumerate(lengths):
            marks = {
                Granularity.dense: set(range(length)),
                Granularity.sparse: set(),
                Granularity.interval: {t for t in range(length) if (t + 1) % interval == 0},
                Granularity.step: {t for t in range(length) if ends[row, t]},
            }[granularity] | {length - 1}
            assert {t for t in range(width) if read[row, t]} == marks
            for t in range(width):
                if t >= length:
                    assert filled[row, t] == 0
                    continue
                end = min(m for m in marks if m >= t)
                start = max((m + 1 for m in marks if m < t), default=0)
                assert filled[row, t] == values[row, end]
                torch.testing.assert_close(means[row, t], values[row, start : end + 1].mean())


def test_gradient_of_a_segment_reaches_the_token_that_is_read() -> None:
    values = torch.randn(1, 4, requires_grad=True)
    back_fill(values, torch.tensor([[False, True, False, True]])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0, 2, 0, 2]]


def marked(tokens: list[str]) -> list[str]:
    """The tokens that end a step, in a text of these tokens."""
    kinds = step_kinds(len(tokens), tokens.__getitem__)
    return [token for token, ends in zip(tokens, ends_step(kinds[None])[0].tolist(), strict=True) if ends]


def test_tokens_that_end_a_step() -> None:
    closing = [".", " done.", "!", "?", "?  ", "\n", ".\n\n", "</think>"]
    for token in closing:
        assert marked([token, " so"]) == [token]
    for token in ["3.5", ".5", "3", " so", "", ",", "=", "<think>"]:
        assert marked([token, " so"]) == []


def test_decimal_points_do_not_end_a_step() -> None:
    """Trap: a decimal point taken for the end of a sentence; most tokenizers split 3.5 into three tokens."""
    assert marked(["She", " has", " ", "3", ".", "5", " pens", ".", " Then"]) == ["."]
    assert marked(["3", ".", " ", "5"]) == ["."]  # one sentence ends in 3, the next starts with 5
    assert marked(["is", " 3.", "5", "\n", "5", " + ", "2"]) == ["\n"]


def test_steps_of_an_embedded_trace_are_its_lines(tokenizer: PreTrainedTokenizerFast) -> None:
    kinds = step_kinds(len(tokenizer), lambda token: tokenizer.decode([token]))
    trace = "<think>\n3 + 4 = 7\n7 - 2 = 5\n</think>\n<answer>\n5\n</answer>"
    ids = torch.tensor([tokenizer(trace, add_special_tokens=False)["input_ids"]])
    read = read_mask(torch.ones_like(ids), Granularity.step, 1, ends_step(kinds[ids]))
    texts = [tokenizer.decode([token]) for token in ids[0][read[0]].tolist()]
    assert texts == ["\n", "\n", "\n", "</think>", "\n", "\n", "\n", "</answer>"]
