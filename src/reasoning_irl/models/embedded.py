"""The embedded model: a Llama with about 0.1M parameters and a word-level tokenizer, both built from code.

They are ordinary transformers objects, so they can be loaded, trained, saved and served like any other model.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reasoning_irl.config.schema import EmbeddedModelConfig
from reasoning_irl.data.arithmetic import vocabulary

PAD, UNK, END, USER, ASSISTANT = "<|pad|>", "<|unk|>", "<|end|>", "<|user|>", "<|assistant|>"
PUNCTUATION = ".,?"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + "{{ message['content'] }}" + END + "{% else %}"
    "" + USER + "{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def build_tokenizer(max_value: int) -> PreTrainedTokenizerFast:
    """A fast tokenizer with one token per word or number; decoding restores the text as it was written."""
    words = [PAD, UNK, END, USER, ASSISTANT, *vocabulary(max_value)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split(Regex(f"[{PUNCTUATION}]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # a space between words ...
            decoders.Fuse(),
            decoders.Replace(Regex(" ?\n ?"), "\n"),  # ... but none next to a line break
            decoders.Replace(Regex(f" (?=[{PUNCTUATION}])"), ""),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_policy(config: EmbeddedModelConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised Llama (call `set_seed` first for reproducible weights)."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_positions,
            # Larger than usual: with so few dimensions, training from the usual 0.02 takes far longer.
            initializer_range=config.initializer_range,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def save_embedded(config: EmbeddedModelConfig, max_value: int, folder: Path) -> None:
    """Saves a new embedded model and its tokenizer as a normal checkpoint folder."""
    tokenizer = build_tokenizer(max_value)
    build_policy(config, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
