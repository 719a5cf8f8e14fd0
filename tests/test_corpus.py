"""Hostile input ends in one line that says what is wrong and what to do; see tests/corpus."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, set_seed

from tests.corpus.__main__ import page
from tests.corpus.cases import CASES, PWNED, Case, outcome, save_run
from tests.helpers.commands import REPOSITORY

LONGEST = 1000  # characters of a line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    set_seed(0)
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra's programs set up the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_hostile_input_ends_in_one_line(
    case: Case,
    run: Path,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = outcome(case, tmp_path, run, tokenizer)
    assert case.error in line
    assert line.isprintable(), "one line, without characters that a terminal obeys"
    assert len(line) <= LONGEST + 2 * len(str(tmp_path))
    assert case.given.get("log", "") in caplog.text
    assert not (tmp_path / PWNED).exists(), "code of a file was run"
    assert not (tmp_path / "outputs").exists(), "something was written"


def test_corpus_is_large_and_names_no_entry_twice() -> None:
    names = [(case.kind, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= 200


def test_page_is_current() -> None:
    assert (REPOSITORY / "docs" / "errors.md").read_text() == page()
