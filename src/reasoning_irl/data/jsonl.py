"""Reads JSON lines, and your own demonstrations with the keys question, reasoning and answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasoning_irl.data.records import Record, Row, make_prompt
from reasoning_irl.text.trace import extract_answer, format_trace, reasoning_span
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.reading import parse_json


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (1-based line number, object) for each line of a JSON lines file, skipping blank lines.

    Raises DataError, naming file and line, for a line that `parse_object` rejects, and for a missing file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}: set dataset.path to a JSON lines file")
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, parse_object(line)
                    except DataError as error:
                        raise DataError(f"{path}:{number}: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a file that you may read") from None


def parse_object(line: bytes) -> dict[str, Any]:
    """Parses the JSON object of a line. Raises DataError, without file and line, if `parse_json` does or it is none."""
    row = parse_json(line, "the line")
    if not isinstance(row, dict):
        raise DataError(f"the line is a JSON {type(row).__name__}; write one JSON object per line")
    return row


def own_record(row: Row, system_prompt: str) -> Record:
    """Parses a row with the keys question, reasoning, answer and, optionally, id.

    Reasoning that already has tags (<think>, <answer>) is split: the target keeps its own tagged answer, so that an
    expert's error stays in the trace, while `answer` is always the reference. Raises DataError, naming the row, for a
    missing or empty value.
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
