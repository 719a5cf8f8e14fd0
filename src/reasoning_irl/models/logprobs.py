"""Log-probabilities of completion tokens, with gradients, and with the same values on every backend.

Nothing here holds the logits (B, L, V), which for a vocabulary of 128k are larger than the model: TRL's fused head
projects the hidden states of the completions to the vocabulary in tiles, and again for the gradient. Unsloth serves it
with a kernel of its own, and models/cpu_logprobs.py on a CPU.
"""

from typing import Any, TypeVar

import torch
import trl.trainer.utils as trl_utils
from peft import PeftModel
from torch import Tensor, nn

from reasoning_irl.data.tokens import TokenBatch
from reasoning_irl.models import cpu_logprobs

IGNORED = -100  # the label of a position that is not scored
OUTPUTS = ("log_probs", "entropy")
Model = TypeVar("Model", bound=nn.Module)


def with_fused_head(model: Model, temperature: float = 1.0) -> Model:
    """Prepares a causal language model for `token_logps`, with logits divided by `temperature`.

    TRL's trainers do the same with the policy that they train.
    """
    cpu_logprobs.install()
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    trl_utils.add_fused_lm_head(whole, temperature=temperature, outputs=OUTPUTS)
    return model


def token_logps(model: nn.Module, tokens: TokenBatch) -> tuple[Tensor, Tensor | None]:
    """(B, T) log p(y_t | x, y_<t), and (B, T) entropies in nats if the model's head computes them.

    Values on padding are meaningless. The model needs a fused head, see `with_fused_head`.
    """
    # Joined sequences are padded on the right, which causal attention never sees. So no mask is needed, which backends
    # might interpret differently, and fast kernels can be used.
    ids, columns = tokens.compact()  # (B, L), (B, T)
    position = torch.arange(ids.size(1), device=ids.device)
    start, end = tokens.prompt_mask.sum(1, keepdim=True), tokens.attention_mask.sum(1, keepdim=True)
    labels = torch.where((position >= start) & (position < end), ids, IGNORED)
    output: Any = model(input_ids=ids, labels=labels, fused_lm_head=True)
    if output.log_probs.shape != (ids.size(0), ids.size(1) - 1):
        raise RuntimeError(
            f"the model returned log-probabilities of shape {tuple(output.log_probs.shape)} for ids of shape "
            f"{tuple(ids.shape)}: it has cut its input"
        )
    logps, entropies = output.log_probs.gather(1, columns - 1), output.entropy
    return logps, None if entropies is None else entropies.gather(1, columns - 1)


def chosen_logps(hidden: Tensor, output_matrix: Tensor, ids: Tensor) -> Tensor:
    """(N,) log-probabilities of `ids` (N,) under softmax(hidden @ output_matrix.T), from (N, H) and (V, H)."""
    cpu_logprobs.install()
    kernel: Any = getattr(trl_utils, cpu_logprobs.KERNEL)
    width: int = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    logps: Tensor = kernel.apply(hidden, output_matrix, None, ids, 1.0, width, None, 1.0, ())[0]
    return logps
