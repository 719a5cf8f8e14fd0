"""The quickstart's script: its exit code, and that nothing of it runs on when a part fails.

A stub in place of Python notes its arguments and makes the folders that the next commands wait for.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.commands import REPOSITORY

STUB = """#!/usr/bin/env bash
echo "$*" >>"$STUB_LOG"
run=$(sed -E 's/.*(training.output_dir|output_dir|run_dir)=([^ ]*).*/\\2/' <<<"$*")
case "$*" in
*"$STUB_STUCK"*) echo $$ >"$STUB_LOG.stuck"; exec sleep 60 ;;
*"$STUB_FAILS"*)
  [ "$STUB_STUCK" = nothing ] || until [ -s "$STUB_LOG.stuck" ]; do sleep 0.05; done
  echo "error: $1 failed" >&2
  exit 2 ;;
irl_train.py*) mkdir -p "$run/warm_start" ;;
evaluate.py*) mkdir -p "$run" ;;
esac
"""


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of a quickstart whose Python is the stub; $STUB_LOG is beside it."""
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STUB_FAILS", "nothing")
    monkeypatch.setenv("STUB_STUCK", "nothing")
    return tmp_path / "run"


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    script = ["bash", "runner_scripts/quickstart.sh", str(folder), "3"]
    return subprocess.run(script, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


def test_every_command_runs_once_and_the_script_succeeds(quickstart: Path) -> None:
    """Trap: the clean-up at the end, which finds nothing to end, is not a failure."""
    result = run(quickstart)
    assert result.returncode == 0, result.stderr
    calls = (quickstart.parent / "log").read_text().splitlines()
    names = [call.split()[0] for call in calls]
    assert sorted(names) == sorted(
        ["irl_train.py", "sft_train.py", *["evaluate.py"] * 3, *["evaluate_irl.py"] * 2, "figures/plot_run.py", "-m"]
    )
    assert names.index("irl_train.py") < names.index("sft_train.py")
    scored = [call for call in calls if call.startswith("evaluate_irl.py")]
    assert max(calls.index(call) for call in calls if call.startswith("evaluate.py")) < calls.index(scored[0])


@pytest.mark.parametrize(
    "fails", ["irl_train.py", "sft_train.py", "policy_path=", "eval.traces=", "figures/plot_run.py"]
)
def test_a_failure_is_shown_and_ends_the_script(quickstart: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    monkeypatch.setenv("STUB_FAILS", fails)
    result = run(quickstart)
    assert result.returncode != 0
    assert "failed" in result.stderr
    assert "quickstart_report" not in (quickstart.parent / "log").read_text()


def is_running(process: int) -> bool:
    """Whether the process exists and has not ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("stuck", "fails"),
    [
        ("sft_train.py", "policy_path="),
        ("evaluate.py run_dir=RUN/sft", "policy_path="),
        ("eval.traces=", "evaluate_irl"),
    ],
)
def test_what_runs_in_the_background_ends_with_a_command_that_failed(
    quickstart: Path, monkeypatch: pytest.MonkeyPatch, stuck: str, fails: str
) -> None:
    """Trap: ending the shell that started a program, but not the program."""
    monkeypatch.setenv("STUB_STUCK", stuck.replace("RUN", str(quickstart)))
    monkeypatch.setenv("STUB_FAILS", fails)
    assert run(quickstart).returncode == 2
    process = int((quickstart.parent / "log.stuck").read_text())
    for _ in range(100):
        if not is_running(process):
            return
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    pytest.fail(f"{stuck} goes on")
