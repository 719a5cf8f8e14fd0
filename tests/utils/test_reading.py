import json
from pathlib import Path

import pytest

from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.reading import parse_json, read_json, read_yaml


def test_values_are_those_of_the_library() -> None:
    text = '{"a": [1, -2.5e-3, true, null], "b": "\\ud83d\\ude00 \\u00e9", "c": {"d": {}}}'
    assert parse_json(text.encode(), "it") == json.loads(text)
    assert parse_json(b"\xef\xbb\xbf[1]", "it") == [1]


def test_line_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "a": tru\n}')
    with pytest.raises(
        DataError, match=r"a\.json is not valid JSON \(Expecting value at line 2, column 7\).*: do this"
    ):
        read_json(path, "do this")
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file or directory\): do this"):
        read_json(tmp_path / "none.json", "do this")


def test_numbers_at_the_ends_of_their_range_are_kept() -> None:
    """Trap: a check for infinity that refuses a large number, or lets one through that overflows."""
    assert parse_json(b"[1.7976931348623157e308, 5e-324, 1e-999]", "it") == [1.7976931348623157e308, 5e-324, 0.0]
    with pytest.raises(DataError, match="it contains the number -1e309, which is too large"):
        parse_json(b"[-1e309]", "it")
    assert parse_json(b"[" + b"9" * 4300 + b"]", "it") == [int("9" * 4300)]


def test_yaml_keeps_the_types_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1.0e-05\nb: 1e-5\nc: 'no'\nd: [1, null]\n")
    assert read_yaml(path, "") == {"a": 1e-5, "b": 1e-5, "c": "no", "d": [1, None]}
