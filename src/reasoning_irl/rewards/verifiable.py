"""Verifiable rewards: what can be checked against the answer key. AIRL only watches them."""

from typing import Any

from reasoning_irl.data.records import ChatMessage, extract_answer
from reasoning_irl.rewards.answers import answers_match


def watch_accuracy(completions: list[list[ChatMessage]], answer: list[str], **_: Any) -> list[float]:
    """1 where the completion's answer matches the reference, else 0; in TRL's form of a reward function."""
    return [
        float(answers_match(extract_answer(completion[-1]["content"]), reference))
        for completion, reference in zip(completions, answer, strict=True)
    ]
