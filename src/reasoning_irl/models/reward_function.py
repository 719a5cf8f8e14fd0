"""A reward model as a reward function of TRL's GRPOTrainer: one number per completion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.text.trace import ChatMessage
from reasoning_irl.utils.errors import DataError

Text = str | Sequence[ChatMessage]  # as TRL passes it: plain text, or chat messages


@dataclass(frozen=True)
class RewardFunction:
    """Returns `Scored.total` of each completion, for `GRPOTrainer(reward_funcs=[RewardFunction(model)])`.

    The question is the text of the prompt or of its last message; the reward model puts it into its own chat template,
    with the system prompt that it was trained with. A completion without text gets at most the lowest reward of the
    others in the call: the model never saw one, and a policy must not gain by writing nothing. Completions are scored
    as finished, also those that were cut off: set `mask_truncated_completions=True` in GRPOConfig to leave these out.

    >>> trainer = GRPOTrainer("MODEL", reward_funcs=[RewardFunction(RewardModel.from_run("DIR"))], ...)
    """

    model: RewardModel
    batch_size: int = 16

    __name__ = "reasoning_reward"  # in TRL's logs

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **_: Any) -> list[float]:
        questions = [_last_text(prompt, "prompts", at) for at, prompt in enumerate(prompts)]
        answers = [_only_text(completion, at) for at, completion in enumerate(completions)]
        scored = self.model.score_batch(questions, answers, self.batch_size)
        written = [of_one.total for of_one, text in zip(scored, answers, strict=True) if text.strip()]
        lowest = min(written, default=float("inf"))
        return [
            of_one.total if text.strip() else min(of_one.total, lowest)
            for of_one, text in zip(scored, answers, strict=True)
        ]


def _last_text(messages: Text, name: str, at: int) -> str:
    """The text, or that of the last chat message. Raises DataError if there is none."""
    text = messages if isinstance(messages, str) else messages[-1]["content"] if messages else None
    if not isinstance(text, str):
        raise DataError(f"{name}[{at}] has no text: give a string, or chat messages whose content is a string")
    return text


def _only_text(completion: Text, at: int) -> str:
    if isinstance(completion, list) and len(completion) > 1:
        raise DataError(f"completions[{at}] has {len(completion)} messages: only one without tool calls can be scored")
    return _last_text(completion, "completions", at)
