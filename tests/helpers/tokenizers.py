"""Tiny tokenizers with different vocabularies, and random spans of tokens."""

import random
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reasoning_irl.text.trace import Span

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
CORPUS = ["<think>\n12 + 30 = 42\n</think>\n<answer>\n42\n</answer>", "Tom has 1,800 apples.", "the answer is 18.0"] * 3


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=TEMPLATE, padding_side="left"
    )


def byte_level(
    vocab_size: int, corpus: Sequence[str] = CORPUS, splitter: pre_tokenizers.PreTokenizer | None = None
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE, as Llama and Qwen use: a character may be several tokens.

    `splitter` replaces the usual splitting of text into words.
    """
    tokenizer = Tokenizer(models.BPE())
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitter is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*([splitter] if splitter else []), bytes_of_words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return wrapped(tokenizer)


def random_cover(rng: random.Random, length: int) -> list[Span]:
    """Spans without gaps; some are empty, some share a character with another."""
    spans: list[Span] = []
    at = 0
    while at < length:
        end = min(length, at + rng.choice([0, 1, 1, 2, 4]))
        spans += [(at, end)] * (2 if end - at == 1 and rng.random() < 0.3 else 1)
        at = end
    return spans


COARSE, FINE, FINE_BYTES = byte_level(340), byte_level(264), byte_level(258)
