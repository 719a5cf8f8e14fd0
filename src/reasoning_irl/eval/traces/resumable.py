"""Traces on their way into a file: written as they are made, so that an evaluation that is cut short goes on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoning_irl.utils.errors import UserError

Row = dict[str, Any]


class PartialTraces:
    """A file of traces that grows by whole problems.

    The first line names the evaluation it belongs to; a last line that was cut short is dropped. Rows stay on the
    disk, so that memory does not grow with them.
    """

    def __init__(self, path: Path, evaluation: Mapping[str, Any], n_samples: int) -> None:
        """Raises UserError where the file was left by another evaluation."""
        self._path, self._n_samples = path, n_samples
        self._places: dict[str, list[tuple[int, int]]] = {}  # of each problem's rows: offset and length in bytes
        head = json.dumps(evaluation, sort_keys=True) + "\n"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head, encoding="utf-8")
            return
        with path.open("rb") as file:
            if file.readline().decode() != head:
                raise UserError(
                    f"{path} was left by an evaluation with other settings: finish that one with the same command, "
                    "choose another output_dir=..., or remove the file"
                )
            offset = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._places.setdefault(str(json.loads(line)["id"]), []).append((offset, len(line)))
                offset += len(line)
        with path.open("r+b") as file:
            file.truncate(offset)

    def has(self, problem: str) -> bool:
        return len(self._places.get(problem, [])) == self._n_samples

    def add(self, rows: Sequence[Row]) -> None:
        """Appends the rows of whole problems."""
        with self._path.open("ab") as file:
            offset = file.tell()
            for row in rows:
                line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
                file.write(line)
                self._places.setdefault(str(row["id"]), []).append((offset, len(line)))
                offset += len(line)

    def rows(self, problems: Sequence[str]) -> Iterator[Row]:
        """The rows of these problems, in their order."""
        with self._path.open("rb") as file:
            for problem in problems:
                for offset, length in self._places[problem]:
                    file.seek(offset)
                    yield json.loads(file.read(length))

    def finish(self, target: Path, problems: Sequence[str]) -> None:
        """Writes the rows of these problems, in their order, to the final file; the partial one goes."""
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as out, self._path.open("rb") as file:
            for problem in problems:
                for offset, length in self._places[problem]:
                    file.seek(offset)
                    out.write(file.read(length))
        part.replace(target)
        self._path.unlink()
