"""JSON lines, and a user's own demonstrations: the keys question, reasoning and answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_irl.data.records import Record, Row, make_prompt
from reasoning_irl.text.trace import extract_answer, format_trace, reasoning_span
from reasoning_irl.utils.errors import DataError


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their 1-based line numbers; blank lines are passed over.

    Raises DataError, naming file and line, for a line that `parse_object` refuses, and for a missing file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}: set dataset.path to a JSON lines file")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, parse_object(line)
                except DataError as error:
                    raise DataError(f"{path}:{number}: {error}") from None


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises DataError where it is none, or holds NaN, which JSON has no word for."""
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise DataError("the line is not UTF-8 text; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"the line is not valid JSON ({error.msg} at column {error.colno}); write one JSON object a line"
        ) from None
    if not isinstance(row, dict):
        raise DataError(f"the line holds a JSON {type(row).__name__}; write one JSON object a line")
    return row


def _refuse_constant(name: str) -> None:
    raise DataError(f"the line holds {name}, which is no JSON number; write null where there is none")


def own_record(row: Row, system_prompt: str) -> Record:
    """The record of a row with the keys question, reasoning, answer and, if wanted, id.

    Reasoning that is already tagged (<think>, <answer>) is taken apart: the target keeps its own tagged answer,
    so that an expert's error stays in the trace, while `answer` is always the reference. Raises DataError, naming
    the place, for a missing or empty value.
    """
    question, reasoning, answer = (row.text(key) for key in ("question", "reasoning", "answer"))
    inside = reasoning[slice(*reasoning_span(reasoning))].strip()
    if not inside:
        raise DataError(f"{row.where}: 'reasoning' has no text before its answer; add the worked steps")
    return Record(
        id=row.text("id") if row.values.get("id") is not None else row.name,
        prompt=make_prompt(question, system_prompt),
        target=format_trace(inside, extract_answer(reasoning) or answer),
        answer=answer,
    )
