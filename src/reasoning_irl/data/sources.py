"""Reads rows from a local file or folder, or from a data set on the hub."""

import codecs
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.data.records import NoExpertError, Record, Row
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.reading import parse_json

Parser = Callable[[Row, str], Record]  # (row, system prompt); raises DataError or NoExpertError
# What the library raises for files that it cannot read; RuntimeError is for a folder with a script, which is never run.
UNREADABLE = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)


@dataclass(frozen=True)
class HubSet:
    name: str
    config: str | None = None


def read_rows(path: str | None, hub: HubSet | None, split: str, key: str) -> list[Row]:
    """Reads a local file (jsonl, json, parquet), a split of a local folder or, if `path` is None, a split of a hub set.

    A folder is laid out as on the hub. `key` is the config key that errors name. Raises DataError if the source cannot
    be read or is empty.
    """
    if path is None:
        assert hub is not None  # data sets that are not on the hub are rejected earlier
        rows = _read_hub(hub, split, key)
    elif Path(path).is_dir():
        rows = _read_folder(Path(path), hub, split, key)
    else:
        rows = _read_file(Path(path), key)
    if not rows:
        raise DataError(f"{path or (hub and hub.name)} contains no records: set {key}=FILE to another file")
    return rows


def to_records(rows: Sequence[Row], parse: Parser, system_prompt: str) -> list[Record]:
    """Parses rows into records; skips rows that yield no expert, with a warning that says how many and why.

    Raises DataError if two records have the same id, by which evaluations group samples.
    """
    records, left_out, first = [], Counter[str](), ""
    places: dict[str, str] = {}
    for row in rows:
        try:
            record = parse(row, system_prompt)
            if record.id in places:
                raise DataError(f"{row.where}: id {record.id} is also that of {places[record.id]}: make ids unique")
            places[record.id] = row.where
            records.append(record)
        except NoExpertError as reason:
            first = first or row.where
            left_out[str(reason)] += 1
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        if not records:
            raise DataError(f"none of the {len(rows)} rows can be used: {reasons} (the first is {first})")
        logger.warning("skipped some of %d rows: %s (the first is %s)", len(rows), reasons, first)
    return records


def _read_file(path: Path, key: str) -> list[Row]:
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}: set {key} to a jsonl, json or parquet file, or a folder")
    if path.suffix == ".parquet":
        try:
            table = datasets.load_dataset("parquet", data_files=str(path), split="train")
        except UNREADABLE as error:
            raise DataError(f"{path} is not a readable parquet file: {_first_line(error)}") from error
        return _rows(table, f"{path}: row", path.stem)
    if path.suffix == ".json":
        rows = _read_json(path)
        if rows is not None:
            return rows
    return [Row(f"{path}:{line}", f"{path.stem}-{line}", values) for line, values in read_jsonl(path)]


def _read_json(path: Path) -> list[Row] | None:
    """The rows of a file that is one JSON list; None if it is something else, such as JSON lines."""
    data = path.read_bytes()
    if not data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return None
    values = parse_json(data, str(path))
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{path}: record {number} is a JSON {type(value).__name__}; write a list of objects")
    return _rows(values, f"{path}: record", path.stem)


def _read_folder(path: Path, hub: HubSet | None, split: str, key: str) -> list[Row]:
    try:
        configs = datasets.get_dataset_config_names(str(path))
        config = hub.config if hub and hub.config in configs else None
        splits = datasets.load_dataset(str(path), config)
    except UNREADABLE as error:
        raise DataError(
            f"the folder {path} cannot be read as a data set ({_first_line(error)}): set {key} to a folder of jsonl, "
            "json or parquet files, or to a single file"
        ) from error
    if split not in splits:
        raise DataError(
            f"the folder {path} has {' and '.join(splits)} data, but no {split} data: set {key} to a single file"
        )
    return _rows(splits[split], f"{path} {split} row", split)


def _read_hub(hub: HubSet, split: str, key: str) -> list[Row]:
    try:
        table = datasets.load_dataset(hub.name, hub.config, split=split)
    except UNREADABLE as error:
        raise DataError(
            f"the hub set {hub.name} cannot be read ({_first_line(error)}): set {key}=FILE to a local copy, check the "
            "network or, for a gated set, run `hf auth login`"
        ) from error
    return _rows(table, f"{hub.name} {split} row", split)


def _rows(table: Any, where: str, name: str) -> list[Row]:
    return [Row(f"{where} {number}", f"{name}-{number}", dict(row)) for number, row in enumerate(table, start=1)]


def _first_line(error: BaseException) -> str:
    if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__:
        return _first_line(error.__cause__)  # its own message names no reason
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
