"""Python scripts run as users run them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import warm_python

REPOSITORY = Path(__file__).resolve().parents[2]


def environment(**variables: str) -> dict[str, str]:
    """The environment with these variables too, and without Hydra's full tracebacks."""
    return {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"} | variables


def run_python(
    *arguments: str | Path, cwd: Path = REPOSITORY, python: str | Path = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python in its own process with additional environment variables and without Hydra's full tracebacks."""
    return subprocess.run(
        [python, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def started_warm_python(folder: Path) -> Iterator[Path]:
    """The `python` of a server in `folder`; see warm_python.py."""
    command = [sys.executable, "-P", warm_python.__file__, str(folder)]
    # The programs set the last two before they import the libraries, which read them then.
    settings = ("OMP_NUM_THREADS", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
    environment = {**os.environ, **dict.fromkeys(settings, "1")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield folder / "python"
        server.communicate()  # the end of its standard input ends it


def with_python(python: Path) -> dict[str, str]:
    """The environment in which shell scripts find this `python` first."""
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHON": str(python), "VIRTUAL_ENV": sys.prefix}
