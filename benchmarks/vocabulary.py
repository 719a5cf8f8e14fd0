"""Peak memory of a discriminator update with a large vocabulary, where logits outweigh the model."""

from typing import Any

from transformers import LlamaConfig, LlamaForTokenClassification, set_seed

from benchmarks.inputs import MAX_VALUE, irl_config, sequences
from benchmarks.measure import Figure, Size, Unit
from reasoning_irl.config.schema import Granularity, RewardHead
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import LikelihoodHead, RewardModel, RewardSpec
from reasoning_irl.training.discriminator import Discriminator, label_batch
from runner_scripts.training_memory import MemoryTracker


def figures(size: Size) -> list[Figure]:
    """What an update with the likelihood head holds at most beside the weights: every tensor alive, exactly counted."""
    set_seed(0)
    tokenizer = build_tokenizer(MAX_VALUE)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_labels": 1}
    config = LlamaConfig(vocab_size=size.vocabulary, num_attention_heads=4, tie_word_embeddings=True, **shape)
    backbone = LlamaForTokenClassification(config)
    matrix: Any = backbone.get_input_embeddings().weight
    head = LikelihoodHead(matrix, tied=True)
    model = RewardModel(backbone, head, RewardSpec(RewardHead.likelihood, Granularity.dense, 1), tokenizer)
    discriminator = Discriminator(model, irl_config("model.reward_micro_batch_size=16").model, 1000)
    rows = sequences(2 + size.n_samples // 4, size.length, tokenizer)
    batch = label_batch(rows[:1], rows[1:-1], rows[-1:], tokenizer.pad_token_id)
    with MemoryTracker() as tracker:
        discriminator.update(batch)
    logits = 4 * size.vocabulary * int(batch.tokens.completion_mask.sum())
    return [
        Figure("update, vocabulary of 128k: peak beside the weights", tracker.peak / 2**20, Unit.memory),
        Figure("the logits of its completions, for comparison", logits / 2**20, Unit.memory),
    ]
