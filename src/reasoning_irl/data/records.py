"""Records, the common form of all data sets, and the rows that they are parsed from.

For the text format of a trace see text/trace.py.
"""

import math
from dataclasses import dataclass
from typing import Any

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.text.trace import ChatMessage
from reasoning_irl.utils.errors import DataError


@dataclass(frozen=True)
class Record:
    """One problem with an expert's worked solution.

    `target` is the expert's full trace. `answer` is the reference answer, which AIRL never trains on, and `answer_kind`
    says how answers are compared with it.
    """

    id: str
    prompt: list[ChatMessage]
    target: str
    answer: str
    answer_kind: AnswerKind = AnswerKind.text

    @property
    def question(self) -> str:
        """The text of the last user message."""
        return self.prompt[-1]["content"]

    def as_row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "prompt": self.prompt,
            "target": self.target,
            "answer": self.answer,
            "answer_kind": self.answer_kind.value,
        }


def make_prompt(question: str, system_prompt: str) -> list[ChatMessage]:
    """Chat messages for a question; an empty system prompt adds no system message."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": question}]


class NoExpertError(Exception):
    """A valid row that yields no expert; the message completes `rows that ...`."""


@dataclass(frozen=True)
class Row:
    """A row's values by column; `where` is its location, such as file:line, and `name` is short and unique."""

    where: str
    name: str
    values: dict[str, Any]

    def text(self, key: str) -> str:
        """A value as stripped text; finite numbers become text. Raises DataError for a missing or other value."""
        value = self.values.get(key)
        if value is None or value == "" or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{self.where}: the record has no '{key}'; every record needs a text under that key")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"{self.where}: '{key}' is a {type(value).__name__}; write it as text")
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{self.where}: '{key}' is {value}, which is no number; write it as text")
        return str(value).strip()
