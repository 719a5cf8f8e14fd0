"""Verifiable rewards: what can be checked against the answer key. GRPO learns from them, AIRL only watches."""

import re
from typing import Any

from reasoning_irl.data.records import ChatMessage, extract_answer
from reasoning_irl.rewards.answers import answers_match

_WELL_FORMED = re.compile(r"\s*<think>.*</think>\s*<answer>.*\S.*</answer>\s*", re.DOTALL)


def answer_reward(completions: list[list[ChatMessage]], answer: list[str], **_: Any) -> list[float]:
    """1 where the completion's answer matches the reference, else 0; in TRL's form of a reward function."""
    return [
        float(answers_match(extract_answer(completion[-1]["content"]), reference))
        for completion, reference in zip(completions, answer, strict=True)
    ]


def is_well_formed(completion: str) -> bool:
    """Whether a completion is one <think> and one non-empty <answer> element, and nothing else."""
    return bool(_WELL_FORMED.fullmatch(completion))


def format_reward(completions: list[list[ChatMessage]], **_: Any) -> list[float]:
    """1 where the completion has the form that is asked for, else 0; in TRL's form of a reward function."""
    return [float(is_well_formed(completion[-1]["content"])) for completion in completions]
