"""Verifiable rewards: what can be checked against the answer key. GRPO learns from them, AIRL only watches."""

import re
from typing import Any

from reasoning_irl.data.records import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, ChatMessage, extract_answer
from reasoning_irl.rewards.checking import is_right
from reasoning_irl.rewards.kinds import AnswerKind

_WELL_FORMED = re.compile(rf"\s*{THINK_OPEN}.*{THINK_CLOSE}\s*{ANSWER_OPEN}\s*\S.*{ANSWER_CLOSE}\s*", re.DOTALL)
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def answer_reward(
    prompts: list[list[ChatMessage]],
    completions: list[list[ChatMessage]],
    answer: list[str],
    answer_kind: list[str],
    **_: Any,
) -> list[float]:
    """1 where the completion's answer is right, else 0; in TRL's form of a reward function."""
    return [
        float(is_right(extract_answer(completion[-1]["content"]), reference, AnswerKind(kind), prompt[-1]["content"]))
        for prompt, completion, reference, kind in zip(prompts, completions, answer, answer_kind, strict=True)
    ]


def is_well_formed(completion: str) -> bool:
    """Whether a completion is one <think> and one non-empty <answer> element, and nothing else."""
    return bool(_WELL_FORMED.fullmatch(completion)) and all(completion.count(tag) == 1 for tag in _TAGS)


def format_reward(completions: list[list[ChatMessage]], **_: Any) -> list[float]:
    """1 where the completion has the form that is asked for, else 0; in TRL's form of a reward function."""
    return [float(is_well_formed(completion[-1]["content"])) for completion in completions]
