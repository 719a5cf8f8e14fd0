"""Hostile input ends in one line that says what is wrong and what to do; see tests/corpus."""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, set_seed

from reasoning_irl.utils.log import QUIET
from tests.corpus.__main__ import page
from tests.corpus.cases import CASES, ENVIRONMENT, PWNED, Case, outcome, save_run, words_of
from tests.helpers.commands import REPOSITORY, run_python

LONGEST = 1000  # characters of a line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    set_seed(0)
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The programs set up the root logger, and quieten the libraries'."""
    loggers = [logging.getLogger(name) for name in (None, "transformers.modeling_utils", *QUIET)]
    before = [(logger, list(logger.handlers), list(logger.filters), logger.level) for logger in loggers]
    yield
    for logger, handlers, filters, level in before:
        logger.handlers[:], logger.filters[:] = handlers, filters
        logger.setLevel(level)


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "a seed of 2^32",
        "a run name that climbs out of the outputs",
        "a key of thousands of parts",
        "the key of W&B as a value",
        "an output folder that is a file",
    ],
)
def test_program_in_a_process_of_its_own_ends_so_too(name: str, tmp_path: Path) -> None:
    (case,) = [case for case in CASES if (case.kind, case.name) == ("overrides", name)]
    (tmp_path / "a_file").touch()
    environment = {key: value for key, value in ENVIRONMENT.items() if value}
    done = run_python(REPOSITORY / "irl_train.py", *words_of(case.given, tmp_path), cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert case.error in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


# Calls that run text or a file as a program.
RUNS_CODE = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "os.system", "yaml.unsafe_load"}


def test_package_runs_no_text_and_no_file_as_a_program() -> None:
    """Models and tokenizers of the libraries' Auto classes come without code of their own, states without pickles."""
    for path in (REPOSITORY / "src").rglob("*.py"):
        for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
            name, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name not in RUNS_CODE, f"{path}:{call.lineno}"
            if name == "torch.load":
                assert given.get("weights_only") == "True", f"{path}:{call.lineno}"
            if name.lower().startswith("auto") and name.endswith(".from_pretrained"):
                # None: **arguments, which the corpus tries
                assert given.get("trust_remote_code") == "False" or None in given, f"{path}:{call.lineno}"


def test_corpus_is_large_and_names_no_entry_twice() -> None:
    names = [(case.kind, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= 200


def test_page_is_current() -> None:
    assert (REPOSITORY / "docs" / "errors.md").read_text() == page()
