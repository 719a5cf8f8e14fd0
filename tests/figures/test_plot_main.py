"""Tables and figures over several runs, from tiny made-up folders."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from figures.plot_main import LINE_WIDTH, lay_out
from figures.tables import escape, latex, markdown, number
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.traces import write_rows

CONFIG = """seed: {seed}
model: {{classifier_loss: {loss}}}
training: {{output_dir: {folder}}}
wandb: {{run_name: {name}}}
"""


def make_run(folder: Path, name: str, seed: int = 0, loss: str = "bce", **more: Any) -> Path:
    """Writes two problems with two samples each, of which one is right; `more` replaces metrics."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, loss=loss, folder=folder, name=name))
    metrics = {
        "supervision": "demonstrations",
        "pass@1": 0.25,
        "pass@2": 0.5,
        "n_rerank": 2,
        "reward/auroc": 0.7 + seed / 10,
    }
    metrics |= {"curve/n": [1, 2], "curve/reward": [0.25, 0.5], "curve/random": [0.25, 0.25], "reward/rerank@1|2": 0.5}
    (folder / "metrics.json").write_text(json.dumps(metrics | more))
    rows = [
        {
            "id": str(problem),
            "sample": sample,
            "completion": "<think>\n1 + 1 = 3\n</think>",
            "steps": ["1 + 1 = 3"],
            "first_error_step": None if right else 1,
            "correct": right,
            "split": "test",
            "score": 1.0 if right else -sample,
            "logprob": -0.5 - sample,
            "format_ok": True,
            "tokens": ["<think>", "\n", "1 + 1", " = 3", "\n", "</think>"],
            "token_rewards": [0.1, 0.0, 0.5, -1.0, 0.2, 0.1],
        }
        for problem in range(2)
        for sample, right in enumerate([problem == 0, False])
    ]
    rows.append({**rows[0], "split": "validation", "correct": True})
    write_rows(folder / "traces.jsonl", rows)
    return folder


def plot(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_python(REPOSITORY / "figures" / "plot_main.py", *arguments)


def test_seeds_are_combined_and_other_settings_are_not(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{seed}", f"a_seed{seed}", seed) for seed in (0, 1)]
    runs.append(make_run(tmp_path / "b", "b_50%", loss="wgan", supervision="verifier"))
    done = plot(*runs, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "pass_at_k.md").read_text().splitlines()[4:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[:3] for row in cells] == [["a", "demonstrations", "2"], ["b_50%", "verifier", "1"]]
    # One of four samples is right; the right validation row does not count.
    assert cells[0][3].startswith("0.250 [")
    assert cells[0][4].startswith("0.500 [")
    ablations = (tmp_path / "out" / "ablations.md").read_text()
    assert "0.750 [0.700, 0.800]" in ablations
    tex = (tmp_path / "out" / "pass_at_k.tex").read_text()
    assert r"b\_50\% & verifier" in tex
    assert tex.count(r"\\") == 3
    drawn = {path.stem for path in (tmp_path / "out").glob("*.png")}
    expected = {"pass_at_k", "rerank_curves", "reward_distributions", "correlations", "heatmap_1", "heatmap_2"}
    assert drawn == expected


def test_samples_within_runs_are_a_method_of_their_own(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{seed}", f"a_seed{seed}", seed) for seed in (0, 1)]
    within = [make_run(run / name, "unread", loss="wgan") for name in ("start", "end") for run in runs]
    for folder in within:
        (folder / "config.yaml").unlink()
    done = plot(*runs, *within, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "pass_at_k.md").read_text().splitlines()[4:]
    assert [line.split("|")[1:4:2] for line in lines] == [[" a ", " 2 "], [" start ", " 2 "], [" end ", " 2 "]]


def test_missing_metrics_are_dashes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "a")
    (run / "metrics.json").write_text(json.dumps({"pass@1": 0.25, "pass@9": 0.5}))
    rows = [{"id": "0", "completion": "a", "correct": True}, {"id": "0", "completion": "b", "correct": False}]
    write_rows(run / "traces.jsonl", rows)
    done = plot(run, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "| a | not declared | 1 | 0.500 [0.500, 0.500] | – |" in (tmp_path / "out" / "pass_at_k.md").read_text()
    assert "–" in (tmp_path / "out" / "ablations.md").read_text()


@pytest.mark.parametrize("name", ["metrics.json", "traces.jsonl"])
def test_run_without_an_evaluation_ends_in_one_line(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "a", "a")
    (run / name).unlink()
    done = plot(run, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "evaluate.py" in done.stderr
    assert not (tmp_path / "out").exists()


def test_number_of_labels_must_match_the_methods(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{seed}", "a", seed) for seed in (0, 1)]
    assert "2 labels for 1 methods" in plot(*runs, "--out", tmp_path / "out", "--labels", "x", "y").stderr


def test_tables_escape_special_characters() -> None:
    assert escape(r"a_b & 50% \x~") == r"a\_b \& 50\% \textbackslash{}x\textasciitilde{}"
    assert "rerank@1\\|8" in markdown(["rerank@1|8"], [])
    assert r"\caption{50\%}" in latex(["a"], [["b"]], "50%")
    assert number(None) == "–"
    assert number(0.5, 0.25, 0.75) == "0.500 [0.250, 0.750]"


def test_long_line_is_wrapped_and_the_wrong_step_is_marked() -> None:
    row = {
        "completion": "ab" * 50 + "\nc = d",
        "tokens": [*["ab"] * 50, "\n", "c", " = d"],
        "token_rewards": [0.0] * 53,
        "steps": ["ab" * 50, "c = d"],
        "first_error_step": 2,
    }
    pieces = lay_out(row)
    assert max(piece.column + len(piece.text) for piece in pieces) <= LINE_WIDTH
    assert [piece.text for piece in pieces if piece.is_wrong] == ["c", " = d"]
    assert pieces[-1].line == 2
