"""Verifiable rewards, checked against the answer key: GRPO trains on them, AIRL only logs them."""

from collections.abc import Mapping
from typing import Any

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.rewards.checking import is_right
from reasoning_irl.text.trace import ChatMessage, extract_answer, is_well_formed


def answer_reward(
    prompts: list[list[ChatMessage]],
    completions: list[list[ChatMessage]],
    answer: list[str],
    answer_kind: list[str],
    **_: Any,
) -> list[float]:
    """TRL reward function: 1 if the completion's answer is right, else 0."""
    return [
        float(is_right(extract_answer(completion[-1]["content"]), reference, AnswerKind(kind), prompt[-1]["content"]))
        for prompt, completion, reference, kind in zip(prompts, completions, answer, answer_kind, strict=True)
    ]


def row_is_right(completion: str, row: Mapping[str, Any]) -> bool:
    """Whether a completion's answer is that of the data set's row (see `Record.as_row`)."""
    kind, question = AnswerKind(row["answer_kind"]), row["prompt"][-1]["content"]
    return is_right(extract_answer(completion), row["answer"], kind, question)


def format_reward(completions: list[list[ChatMessage]], **_: Any) -> list[float]:
    """TRL reward function: 1 if the completion has the required format, else 0."""
    return [float(is_well_formed(completion[-1]["content"])) for completion in completions]
