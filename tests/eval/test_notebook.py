"""The notebook's cells are executed in order, with a tiny run in place of the one that its first command trains."""

import json
import logging
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.cli.main import main
from tests.helpers.commands import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "reward_in_ten_minutes.ipynb"
# What makes a command short; `train` only composes its config.
SHORT = {
    "train": ["--cfg=job"],
    "evaluate": ["eval.n_problems=6", "eval.n_validation=2", "sampling.max_completion_length=12"],
    "score": ["eval.n_planted=8", "eval.bootstrap_draws=20"],
}


def test_notebook_runs(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_dir, tmp_path / "outputs/notebook")
    monkeypatch.chdir(tmp_path)
    # A program sets these for its whole process, which here has other tests to run.
    for name in ("HYDRA_FULL_ERROR", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(logging.getLogger("transformers.modeling_utils"), "filters", [])

    def command(line: str) -> None:
        name, program, *arguments = shlex.split(line)
        assert name == "reasoning-irl"
        monkeypatch.setattr("sys.argv", [name, program, *arguments, *SHORT[program]])
        assert main() is None

    variables: dict[str, Any] = {"command": command}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")  # they would go stale
        if cell["cell_type"] == "code":
            exec(re.sub(r"^!(.*)$", r"command('\1')", "".join(cell["source"]), flags=re.M), variables)
    assert (tmp_path / "outputs/notebook/report.html").is_file()
    printed = capsys.readouterr().out
    assert re.search(r"^oracle +\d\.\d{3}$", printed, re.M)
    assert re.search(r"^\d+ of \d+ first wrong steps found$", printed, re.M)
    assert {row["split"] for row in variables["traces"]} == {"test"}
    assert "</span>" in variables["scored"]._repr_html_()
