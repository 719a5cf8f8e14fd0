"""The first layers of a decoder, frozen: their outputs are computed once per sequence and kept in memory.

Most of the cost of training the upper layers of a model is running the lower ones, which always give the same outputs
for the same sequence. This is worth it where sequences recur, as in training on a file of samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reasoning_irl.data.tokens import TokenBatch, TokenSequence
from reasoning_irl.utils.errors import UserError


class FrozenLayers:
    """Freezes the embeddings and the first `n` layers of a decoder with `embed_tokens`, `layers` and `norm`.

    With as many as there are, only the final norm and what reads it are trained. Raises UserError if the decoder is
    built otherwise, mixes kinds of attention, or has fewer layers.
    """

    def __init__(self, decoder: nn.Module, n: int) -> None:
        parts: Any = decoder
        if not all(hasattr(decoder, name) for name in ("embed_tokens", "layers", "norm")):
            raise UserError(f"model.reward_frozen_layers does not support {type(decoder).__name__}: set it to 0")
        if len(set(getattr(parts.config, "layer_types", None) or [""])) > 1:
            raise UserError(
                f"model.reward_frozen_layers needs layers of one kind, and {type(decoder).__name__} mixes "
                "full and windowed attention: set it to 0"
            )
        if n > len(parts.layers):
            raise UserError(f"model.reward_frozen_layers={n}: the model has {len(parts.layers)} layers; freeze fewer")
        self.n = n
        self._decoder = parts
        self._known: dict[TokenSequence, Tensor] = {}  # (L, H) each, on the CPU
        for module in (parts.embed_tokens, *parts.layers[:n]):
            module.requires_grad_(False)

    def outputs(self, batch: TokenBatch) -> Tensor:
        """(B, L, H) the outputs of the last frozen layer for `batch.compact()`, zero on padding."""
        sequences = batch.sequences()
        unknown = [index for index, sequence in enumerate(sequences) if sequence not in self._known]
        if unknown:
            ids, _ = batch.compact()
            for index, hidden in zip(unknown, self._run(ids[unknown]), strict=True):
                length = len(sequences[index].prompt_ids) + len(sequences[index].completion_ids)
                self._known[sequences[index]] = hidden[:length].clone().cpu()  # a copy, so that the batch is freed
        rows = [self._known[sequence] for sequence in sequences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(batch.completion_ids.device)

    @contextmanager
    def skipped(self) -> Iterator[None]:
        """Within this context, the decoder consists of the layers above; its inputs are `outputs`."""
        with self._only(self._decoder.layers[self.n :], self._decoder.norm):
            yield

    @torch.no_grad()
    def _run(self, ids: Tensor) -> Tensor:
        """(B, L, H); causal attention never sees padding on the right."""
        with self._only(self._decoder.layers[: self.n], nn.Identity()):
            hidden: Tensor = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    @contextmanager
    def _only(self, layers: nn.ModuleList, norm: nn.Module) -> Iterator[None]:
        whole = self._decoder.layers, self._decoder.norm
        self._decoder.layers, self._decoder.norm = layers, norm
        try:
            yield
        finally:
            self._decoder.layers, self._decoder.norm = whole
