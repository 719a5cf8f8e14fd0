"""Rewards between tokenizers, against a character-by-character reference."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data.alignment import TokenBridge, carry
from reasoning_irl.data.records import Record, Span, make_prompt
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.eval.pieces import decode, spans_of, token_pieces
from reasoning_irl.utils.errors import DataError

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
CORPUS = ["<think>\n12 + 30 = 42\n</think>\n<answer>\n42\n</answer>", "Tom has 1,800 apples.", "the answer is 18.0"] * 3
TEXTS = [
    "<think>\n12 + 345 = 357\n</think>\n<answer>\n357\n</answer>",
    "  two leading spaces and 1800 apples, 18.0 of them",
    "naïve café, e\u0301 combining, Ω≈ç√",
    "emoji 👩‍👩‍👧 and 🎉🎉, 数学は楽しい 42。",
    "a\n\n\nb\t\tc  ",
    "1",
    "",
]


def byte_level(vocab_size: int, corpus: Sequence[str] = CORPUS) -> PreTrainedTokenizerFast:
    """A byte-level BPE, as Llama and Qwen have: one character may be several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return wrapped(tokenizer)


def metaspace() -> PreTrainedTokenizerFast:
    """A unigram model with spaces as a letter and bytes for unknown characters, as SentencePiece writes them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    alphabet = sorted({letter for text in [*CORPUS, *TEXTS] for letter in text})
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<end>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer)


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=TEMPLATE, padding_side="left"
    )


COARSE, FINE = byte_level(340), byte_level(264)
OTHERS = {"coarse": COARSE, "fine": FINE, "metaspace": metaspace()}
RECORD = Record("r", make_prompt("How many?", ""), "<think>\n1\n</think>\n<answer>\n1\n</answer>", "1")


def sequence(tokenizer: PreTrainedTokenizerFast, text: str, ended: bool = True) -> TokenSequence:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return TokenSequence(encode_prompt(tokenizer, RECORD.prompt), (*ids, *[tokenizer.eos_token_id] * ended))


def reference(values: Sequence[float], source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """Character by character, in the plainest way."""
    characters: list[float | None] = []
    for c in range(length):
        over = [value for value, (start, end) in zip(values, source, strict=True) if start <= c < end]
        characters.append(sum(over) / len(over) if over else None)
    filled = []
    for c in range(length):
        later = [value for value in characters[c:] if value is not None]
        earlier = [value for value in characters[:c] if value is not None]
        filled.append(later[0] if later else earlier[-1] if earlier else 0.0)
    result = []
    for start, end in target:
        if not filled:
            result.append(0.0)
        elif end > start:
            result.append(sum(filled[start:end]) / (end - start))
        else:
            result.append(filled[min(start, length - 1)])
    return result


def random_spans(rng: random.Random, length: int) -> list[Span]:
    """Spans in order: whole cover or with gaps, some empty, some sharing a character with the next."""
    spans, at = [], 0
    while at < length:
        start = min(length, at + (rng.random() < 0.2))
        end = min(length, start + rng.choice([0, 1, 1, 2, 5]))
        spans.append((start, end))
        at = max(at, end) if rng.random() < 0.7 or end - start != 1 else start
        at += end == start and rng.random() < 0.5
    return spans


def test_a_thousand_random_alignments_equal_the_reference() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        length = rng.randint(0, 30)
        source, target = random_spans(rng, length), random_spans(rng, length)
        values = [rng.gauss(0, 1) for _ in source]
        np.testing.assert_allclose(
            carry(values, source, target, length), reference(values, source, target, length), atol=1e-12
        )


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ended", [True, False])
def test_rewards_reach_the_tokens_of_their_characters(name: str, text: str, ended: bool) -> None:
    policy = FINE if name == "coarse" else COARSE
    original = sequence(policy, text, ended)
    if not original.completion_ids:
        pytest.skip("a completion has at least one token")
    bridged = TokenBridge(policy, OTHERS[name], [RECORD]).to_reward(original)
    n = len(bridged.sequence.completion_ids)
    assert bridged.sequence.prompt_ids == encode_prompt(OTHERS[name], RECORD.prompt)
    assert (bridged.sequence.completion_ids[-1] == OTHERS[name].eos_token_id) == ended
    # A constant stays constant, and the end token's reward is the end token's.
    np.testing.assert_allclose(bridged.rewards_of_policy([3.0] * n), [3.0] * len(original.completion_ids))
    rewards = list(np.random.default_rng(0).normal(size=n))
    carried = bridged.rewards_of_policy(rewards)
    assert len(carried) == len(original.completion_ids)
    if ended:
        assert carried[-1] == rewards[-1]
    spans = spans_of(token_pieces(policy, original.completion_ids))
    covered = {c for start, end in spans for c in range(start, end)}
    assert covered == set(range(len(text)))


def test_the_total_over_characters_is_kept_exactly() -> None:
    text = TEXTS[0]  # every character is a token's, on both sides
    bridged = TokenBridge(FINE, COARSE, [RECORD]).to_reward(sequence(FINE, text, ended=False))
    rewards = list(np.random.default_rng(1).normal(size=len(bridged.sequence.completion_ids)))
    carried = bridged.rewards_of_policy(rewards)
    per_character = sum(r * (end - start) for r, (start, end) in zip(rewards, bridged.reward_spans, strict=True))
    assert sum(r * (end - start) for r, (start, end) in zip(carried, bridged.policy_spans, strict=True)) == (
        pytest.approx(per_character)
    )


def test_a_number_split_differently_shares_its_reward() -> None:
    """`357` is one token for one model and three for the other."""
    assert carry([1.0, 2.0, 3.0], [(0, 1), (1, 2), (2, 3)], [(0, 3)], 3) == [2.0]
    assert carry([6.0], [(0, 3)], [(0, 1), (1, 3)], 3) == [6.0, 6.0]


def test_special_tokens_inside_a_completion_are_passed_over() -> None:
    ids = COARSE("12 + 3", add_special_tokens=False)["input_ids"]
    with_special = (*ids[:2], COARSE.pad_token_id, *ids[2:], COARSE.eos_token_id)
    original = TokenSequence(encode_prompt(COARSE, RECORD.prompt), with_special)
    bridged = TokenBridge(COARSE, FINE, [RECORD]).to_reward(original)
    carried = bridged.rewards_of_policy([float(i) for i in range(len(bridged.sequence.completion_ids))])
    assert len(carried) == len(with_special)
    assert decode(FINE, bridged.sequence.completion_ids) == "12 + 3"


def test_a_tokenizer_that_loses_text_is_refused_with_the_place() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "<unk>": 2, "12": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = wrapped(tokenizer)
    with pytest.raises(DataError, match="apples"):
        TokenBridge(COARSE, words, [RECORD]).to_reward(sequence(COARSE, "12 apples"))


def test_a_tokenizer_that_composes_characters_keeps_their_offsets() -> None:
    """Qwen's tokenizer writes e + accent as one character; offsets still count those of the text."""
    composing = byte_level(300)
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    text = "cafe\u0301 12"
    bridged = TokenBridge(FINE, composing, [RECORD]).to_reward(sequence(FINE, text))
    assert bridged.length == len(text)
    assert bridged.reward_spans[-2][1] == len(text)


def test_equal_vocabularies_need_no_bridge() -> None:
    assert TokenBridge(COARSE, COARSE, [RECORD]).is_identity
    assert not TokenBridge(COARSE, FINE, [RECORD]).is_identity
