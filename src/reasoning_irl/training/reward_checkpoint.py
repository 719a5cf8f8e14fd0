"""What a checkpoint keeps of the reward model and its training."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import REWARD_MODEL

STATE_FILE = "discriminator_state.pt"


def save_reward_checkpoint(
    folder: Path, model: RewardModel, tokenizer: PreTrainedTokenizerBase, state: dict[str, Any]
) -> None:
    """Saves the reward model with its tokenizer, and the state of everything that its training goes on from."""
    model.save(folder / REWARD_MODEL)
    tokenizer.save_pretrained(folder / REWARD_MODEL)
    torch.save(state, folder / STATE_FILE)


def load_training_state(folder: Path) -> dict[str, Any]:
    """The state that `save_reward_checkpoint` saved; the reward model is loaded on its own.

    Raises UserError if it cannot be read.
    """
    # Tensors and plain Python values only: a file from elsewhere cannot run code.
    try:
        with torch.serialization.safe_globals([TokenSequence]):
            state: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise UserError(
            f"{folder / STATE_FILE} cannot be read ({type(error).__name__}): resume an earlier checkpoint"
        ) from error
    return state
