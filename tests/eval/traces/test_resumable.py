"""The partial file of an evaluation that may be interrupted."""

from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.eval.traces.resumable import PartialTraces
from reasoning_irl.utils.errors import UserError
from tests.helpers.traces import read_rows

SETTINGS = {"seed": 0, "policy": "a"}


def rows(problem: str, n: int = 2) -> list[dict[str, Any]]:
    return [{"id": problem, "sample": number, "completion": "naïve\n"} for number in range(n)]


def test_rows_are_read_back_in_the_order_asked_for(tmp_path: Path) -> None:
    partial = PartialTraces(tmp_path / "new/partial.jsonl", SETTINGS, 2)
    for problem in "bca":
        partial.add(rows(problem))
    assert list(partial.rows(["a", "b"])) == [*rows("a"), *rows("b")]
    partial.write(tmp_path / "traces.jsonl", ["c", "a", "b"])
    partial.remove()
    assert read_rows(tmp_path / "traces.jsonl") == [*rows("c"), *rows("a"), *rows("b")]
    assert not (tmp_path / "new/partial.jsonl").exists()


def test_interrupted_file_goes_on_after_its_last_whole_problem(tmp_path: Path) -> None:
    """Trap: new rows glued to a half-written line."""
    path = tmp_path / "partial.jsonl"
    PartialTraces(path, SETTINGS, 2).add([*rows("a"), *rows("b", 1)])
    with path.open("a") as file:
        file.write('{"id": "b", "sam')
    again = PartialTraces(path, SETTINGS, 2)
    assert [again.has(problem) for problem in "abc"] == [True, False, False]
    again.add(rows("c"))
    assert list(again.rows(["a", "c"])) == [*rows("a"), *rows("c")]
    assert [row.get("id") for row in read_rows(path)] == [None, "a", "a", "c", "c"]


def test_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    PartialTraces(path, SETTINGS, 2).add(rows("a"))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"with other settings: .*output_dir"):
        PartialTraces(path, {**SETTINGS, "seed": 1}, 2)
    assert path.read_bytes() == before


def test_half_written_problem_is_sampled_again_without_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "partial.jsonl"
    PartialTraces(path, SETTINGS, 2).add([*rows("a"), *rows("b", 1)])
    again = PartialTraces(path, SETTINGS, 2)
    again.add(rows("b"))
    assert again.has("b")
    assert list(again.rows(["a", "b"])) == [*rows("a"), *rows("b")]
