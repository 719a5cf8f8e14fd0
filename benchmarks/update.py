"""A discriminator update against what it could cost at most and at least, and how it grows."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.inputs import MAX_VALUE, irl_config, reward_model, sequences
from benchmarks.measure import Figure, Size, Unit, medians
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, label_batch

LONGEST_PROMPT, LONGEST_COMPLETION, MICRO_BATCH = 300, 824, 16  # as published
N_EXPERTS, N_COPIES = 2, 4


def figures(size: Size) -> list[Figure]:
    """Sides of the comparison:

    update     the project's discriminator update: 2 experts, the samples, 4 perturbed copies
    bare       forward and backward passes over as many tokens, in sequences of one length, and an optimiser step
    padded     the same sequences as published: each padded to 300 + 824 tokens
    copies     an expert for each further sample, also padded: as published, experts are repeated, not weighted
    """
    tokenizer = build_tokenizer(MAX_VALUE)
    model = reward_model(size, tokenizer)
    config = irl_config("model.reward_head=plain", "model.reward_lm_coef=0").model
    config.reward_micro_batch_size = MICRO_BATCH
    discriminator = Discriminator(model, config, 1000)

    def labelled(n_samples: int, length: float) -> LabelledBatch:
        rows = sequences(N_EXPERTS + n_samples + N_COPIES, length, tokenizer)
        parts = rows[:N_EXPERTS], rows[N_EXPERTS:-N_COPIES], rows[-N_COPIES:]
        return label_batch(*parts, tokenizer.pad_token_id, model.device)

    sides: dict[str, Callable[[], object]] = {}
    batches = {
        "": labelled(size.n_samples, size.length),
        ", half the samples": labelled(size.n_samples // 2, size.length),
        ", half the length": labelled(size.n_samples, size.length / 2),
    }
    for name, batch in batches.items():
        sides[f"update{name}"] = partial(discriminator.update, batch)
        sides[f"bare pass{name}"] = partial(_step, discriminator, _of_mean_length(batch.tokens.attention_mask))
    rows = batches[""].tokens.sequences()
    sides["padded"] = partial(_step, discriminator, *_padded(rows, size.length, model.device))
    copies = [rows[n % N_EXPERTS] for n in range(size.n_samples - N_EXPERTS)]
    sides["copies"] = partial(_step, discriminator, *_padded(copies, size.length, model.device))
    seconds = medians(sides, size.repeats)
    update, bare = seconds["update"], seconds["bare pass"]

    def growth(name: str) -> float:
        """How much of our growth is that of the bare pass: attention is quadratic in the length."""
        return (seconds[f"update{name}"] / seconds[f"bare pass{name}"]) / (update / bare)

    published = seconds["padded"] + seconds["copies"]
    return [
        *(Figure(name, value, Unit.seconds) for name, value in seconds.items() if name != "copies"),
        Figure("as published: padded, with copies of experts", published, Unit.seconds),
        Figure("bare pass / update", bare / update, Unit.ratio, goal=0.85),
        Figure("padded / update", seconds["padded"] / update, Unit.ratio),
        Figure("as published / update", published / update, Unit.ratio, goal=4.0),
        Figure("growth of the bare pass / of the update, samples x2", growth(", half the samples"), Unit.ratio, 0.85),
        Figure("growth of the bare pass / of the update, length x2", growth(", half the length"), Unit.ratio, 0.85),
    ]


def _of_mean_length(attention_mask: Tensor) -> Tensor:
    """(B, L) ids with as many rows and as many tokens as this mask (B, P + T), without padding."""
    length = round(attention_mask.sum(1).float().mean().item())
    return torch.ones(len(attention_mask), length, dtype=torch.long, device=attention_mask.device)


def _padded(rows: list[TokenSequence], length: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, L) ids and mask of sequences padded to the longest prompt and completion that the config allows."""
    prompt = round(LONGEST_PROMPT * length)
    mask = torch.zeros(len(rows), prompt + round(LONGEST_COMPLETION * length), dtype=torch.long, device=device)
    for n, row in enumerate(rows):
        mask[n, prompt - len(row.prompt_ids) : prompt + len(row.completion_ids)] = 1
    return torch.ones_like(mask), mask


def _step(discriminator: Discriminator, ids: Tensor, mask: Tensor | None = None) -> None:
    """Passes over the rows of `ids` (B, L) with the mean logit as loss, and an optimiser step."""
    for start in range(0, len(ids), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        masked = {} if mask is None else {"attention_mask": mask[part]}
        logits = discriminator.model.backbone(input_ids=ids[part], use_cache=False, **masked).logits
        logits.float().mean().backward()
    discriminator.optimizer.step()
    discriminator.optimizer.zero_grad(set_to_none=True)
