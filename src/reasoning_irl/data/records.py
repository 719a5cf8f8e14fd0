"""What every data set gives, and the one text format of a reasoning trace.

A trace is `<think>\n` + reasoning + `\n</think>\n<answer>\n` + answer + `\n</answer>`. Its *steps* are the
non-empty lines of the reasoning, and the answer is the last step: an error can sit there alone.
"""

from dataclasses import dataclass
from typing import Any

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.text.trace import ChatMessage
from reasoning_irl.utils.errors import DataError


@dataclass(frozen=True)
class Record:
    """One problem with an expert's worked solution.

    `target` is the full trace of the expert; `answer` the reference answer, which the default AIRL run never
    reads for training, and `answer_kind` how it is compared.
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
    """A row that is no mistake of the file, yet gives no expert; the message completes `rows that ...`."""


@dataclass(frozen=True)
class Row:
    """Values by column; `where` is file:line or the like, `name` is short and unlike that of any other row."""

    where: str
    name: str
    values: dict[str, Any]

    def text(self, key: str) -> str:
        """A value as stripped text; a number is written out. Raises DataError where it is missing or not text."""
        value = self.values.get(key)
        if value is None or value == "" or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{self.where}: the record has no '{key}'; each one needs a text under that key")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"{self.where}: '{key}' is a {type(value).__name__}; write it as text")
        return str(value).strip()
