"""Tiny tokenizers with different vocabularies."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
CORPUS = ["<think>\n12 + 30 = 42\n</think>\n<answer>\n42\n</answer>", "Tom has 1,800 apples.", "the answer is 18.0"] * 3


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=TEMPLATE, padding_side="left"
    )


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


COARSE, FINE, FINE_BYTES = byte_level(340), byte_level(264), byte_level(258)
