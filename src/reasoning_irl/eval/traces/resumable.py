"""Writes traces to a file as they are sampled, so that an interrupted evaluation can resume."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoning_irl.data.jsonl import parse_object
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import to_jsonl, write_atomically

TraceRow = dict[str, Any]


class PartialTraces:
    """A traces file that grows by whole problems.

    Its first line identifies the evaluation. A problem that was only half written when the evaluation was interrupted
    is dropped on opening. Rows stay on disk, so memory does not grow with them.
    """

    def __init__(self, path: Path, evaluation: Mapping[str, Any], n_samples: int) -> None:
        """Raises UserError if the file belongs to an evaluation with other settings."""
        self._path, self._n_samples = path, n_samples
        self._places: dict[str, list[tuple[int, int]]] = {}  # by problem: offset and length of its rows in bytes
        head = json.dumps(evaluation, sort_keys=True) + "\n"
        if not path.is_file():
            write_atomically(path, head)
            return
        with path.open("rb") as file:
            if file.readline() != head.encode():
                raise UserError(
                    f"{path} belongs to an unfinished evaluation with other settings: finish it with the same command, "
                    "set another output_dir=FOLDER, or delete the file"
                )
            offset = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    problem = str(parse_object(line)["id"])
                except (DataError, KeyError) as error:
                    raise UserError(f"{path} is damaged ({error}): delete it to sample again") from None
                self._places.setdefault(problem, []).append((offset, len(line)))
                offset += len(line)
        offset = min([offset, *(places[0][0] for problem, places in self._places.items() if not self.has(problem))])
        self._places = {problem: places for problem, places in self._places.items() if places[-1][0] < offset}
        with path.open("r+b") as file:
            file.truncate(offset)

    def has(self, problem: str) -> bool:
        return len(self._places.get(problem, [])) == self._n_samples

    def add(self, rows: Sequence[TraceRow]) -> None:
        """Appends the rows of whole problems."""
        with self._path.open("ab") as file:
            offset = file.tell()
            for row in rows:
                line = to_jsonl([row]).encode()
                file.write(line)
                self._places.setdefault(str(row["id"]), []).append((offset, len(line)))
                offset += len(line)

    def rows(self, problems: Sequence[str]) -> Iterator[TraceRow]:
        """Yields the rows of these problems, in the given order."""
        with self._path.open("rb") as file:
            for problem in problems:
                for offset, length in self._places[problem]:
                    file.seek(offset)
                    yield json.loads(file.read(length))

    def write(self, target: Path, problems: Sequence[str]) -> None:
        """Writes the rows of these problems, in the given order, to the final file."""
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as out, self._path.open("rb") as file:
            for problem in problems:
                for offset, length in self._places[problem]:
                    file.seek(offset)
                    out.write(file.read(length))
        part.replace(target)

    def remove(self) -> None:
        """Deletes the partial file: the evaluation is finished, and cannot be resumed."""
        self._path.unlink()
