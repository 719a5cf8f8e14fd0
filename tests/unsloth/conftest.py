"""Marks the tests of this folder, and leaves them out if Unsloth is not installed."""

from importlib.util import find_spec

import pytest

if find_spec("unsloth") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/unsloth" in str(item.path):
            item.add_marker(pytest.mark.unsloth)
