"""MedReason (Wu et al., 2025, arXiv:2504.00993): medical multiple choice with reasoning along a knowledge graph."""

import hashlib
import re
from typing import Any

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.data.records import NoExpertError, Record, Row, make_prompt
from reasoning_irl.rewards.answers import normalise
from reasoning_irl.rewards.options import find_options, read_choice, show_options
from reasoning_irl.text.trace import format_trace, reasoning_span
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.reading import parse_json

TEST_SHARE = 0.05

_LINE = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)")
_EXPLANATION = re.compile(r"\bexplanation\s*:", re.IGNORECASE)
_DECISION = re.compile(r"\bfinal decision is\s*:?\W*(\w+)", re.IGNORECASE)


def medreason_record(row: Row, system_prompt: str) -> Record:
    """Parses a row: the question followed by its options, and the letter and text of the right option as the answer.

    Raises DataError for a missing column, and NoExpertError for open questions, answers that are none of the options,
    and empty reasoning.
    """
    question = row.text("question")
    options = _options(row.values.get("options")) or find_options(question)
    if len(options) < 2:
        raise NoExpertError("are open questions, without options")
    chosen = _chosen(row.text("answer"), options)
    if chosen is None:
        raise NoExpertError("have an answer that is none of the options")
    reasoning = row.text("reasoning")
    reasoning = reasoning[slice(*reasoning_span(reasoning))].strip()
    if not reasoning:
        raise NoExpertError("have no reasoning before the answer")
    shown = question if find_options(question) == options else show_options(question, options)
    answer = f"{chosen}. {options[chosen]}"
    return Record(
        id=f"medreason-{row.name}",
        prompt=make_prompt(shown, system_prompt),
        target=format_trace(reasoning, answer),
        answer=answer,
        answer_kind=AnswerKind.option,
    )


def is_test_question(row: Row) -> bool:
    """Whether a row belongs to the fixed test part, as the hub has no test split.

    This depends only on the question's text, not on a seed or on the order or number of rows; rows with the same
    question are on the same side.
    """
    question = normalise(row.text("question"))
    digest = hashlib.sha256(f"medreason test {question}".encode()).digest()
    return int.from_bytes(digest[:8]) < TEST_SHARE * 2**64


def _options(value: Any) -> dict[str, str]:
    """Maps letters A, B, ... to texts, from lines such as `A. text` under a heading, or from a list or mapping."""
    if isinstance(value, str):
        if not value.strip().startswith(("[", "{")):
            return _option_lines(value)
        try:
            value = parse_json(value.encode(), "the options")
        except DataError:
            return {}
    texts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return _lettered([str(text) for text in texts if text is not None])


def _option_lines(text: str) -> dict[str, str]:
    texts: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match and match[1] == chr(ord("A") + len(texts)):
            texts.append(match[2])
        elif texts:  # an option over several lines
            texts[-1] += " " + line
    return _lettered(texts)


def _lettered(texts: list[str]) -> dict[str, str]:
    texts = [" ".join(text.split()) for text in texts]
    return {chr(ord("A") + i): text for i, text in enumerate(texts[:26])} if all(texts) else {}


def _chosen(answer: str, options: dict[str, str]) -> str | None:
    """The option named by an answer that may continue with an explanation or end in a decision."""
    decision = _DECISION.search(answer)
    readings = [answer, _EXPLANATION.split(answer)[0], decision[1] if decision else None]
    return next((choice for text in readings if (choice := read_choice(text, options))), None)
