"""One row of a data set, with the place that an error names."""

from dataclasses import dataclass
from typing import Any

from reasoning_irl.utils.errors import DataError


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
