"""The figures of a run, drawn from tiny made-up files."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from figures import plot_run as plots
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.traces import write_rows

SCRIPT = REPOSITORY / "figures" / "plot_run.py"
ALL = [
    "training_curves",
    "reward_distributions",
    "rerank_vs_n",
    "calibration",
    "reward_by_position",
    "first_wrong_step",
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with few values in each of its files."""
    log = [
        {"step": 1, "discriminator/loss": 0.7, "policy/skipped": 1},
        {"step": 2, "discriminator/loss": 0.6, "policy/reward_mean": -0.2, "monitor/accuracy": None},
        {"step": 3, "discriminator/accuracy_expert": 0.8, "policy/reward_mean": 0.0, "policy/skipped": 0},
    ]
    traces = [
        {"completion": "a", "correct": True, "score": 1.0},
        {"completion": "b", "correct": False, "score": -1.0},
        {"completion": "b", "correct": False, "score": -0.9},
        {"completion": "c", "correct": None, "score": 0.5},
        {"completion": "d", "correct": False, "score": None},
        {"completion": "e", "correct": True, "score": 9.0, "split": "validation"},
    ]
    curves = {"curve/n": [1, 2, 4], "curve/reward": [0.4, 0.5, 0.6], "curve/random": [0.4, 0.4, 0.4]}
    # The last bin is empty, and no right trace has a token in the second half.
    bins: dict[str, Any] = {"count": [2, 3, 0], "confidence": [0.2, 0.7, None], "accuracy": [0.5, 0.6, None]}
    bins |= {"accuracy_low": [0.1, 0.3, None], "accuracy_high": [0.9, 0.6, None]}
    bins = {f"calibration/reward/bin_{name}": values for name, values in bins.items()}
    places = {f"position/reward/right{end}": [value, None] for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))}
    places |= {f"position/reward/wrong{end}": [0.1, -0.5] for end in ("", "_low", "_high")}
    found: dict[str, Any] = {
        "reward/first_error_hit@1/planted": 0.9,
        "chance/first_error_hit@1/planted": 0.3,
        "n_planted": 7,
    }
    found |= {"reward/first_error_hit@1/planted/low": 0.8, "reward/first_error_hit@1/planted/high": 0.95}
    found |= {"reward/first_error_hit@1/natural": None}
    write_rows(tmp_path / "train_log.jsonl", [*log, ""])
    write_rows(tmp_path / "traces.jsonl", traces)
    (tmp_path / "metrics.json").write_text(json.dumps({**curves, **bins, **places, **found, "reward/ece": 0.05}))
    return tmp_path


def drawn(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> dict[str, Figure]:
    """The figures that plot_run saves, by name."""
    kept = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        kept[name] = figure
        return [folder / name]

    monkeypatch.setattr(plots, "save", keep)
    plots.plot_run(run_dir)
    return kept


def test_every_figure_is_written_as_png_and_pdf(run_dir: Path) -> None:
    files = plots.plot_run(run_dir)
    assert files == [run_dir / "figures" / f"{name}.{kind}" for name in ALL for kind in ("png", "pdf")]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"%PDF")
        assert file.stat().st_size > 3000


def test_same_numbers_give_identical_files(run_dir: Path) -> None:
    first = [file.read_bytes() for file in plots.plot_run(run_dir)]
    assert first == [file.read_bytes() for file in plots.plot_run(run_dir)]


def test_training_curves_show_the_metrics_of_the_log(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    figure = drawn(monkeypatch, run_dir)["training_curves"]
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["Discriminator loss", "Discriminator accuracy", "Reward of policy samples"]
    lines = panels["Reward of policy samples"].get_lines()
    raw, smooth = (line.get_xydata().tolist() for line in lines)
    assert raw == smooth == [[2, -0.2], [3, 0.0]]  # too few to smooth
    assert [text.get_text() for text in panels["Discriminator accuracy"].get_legend().get_texts()] == ["expert"]
    for axes in panels.values():
        (shade,) = axes.collections
        assert [path.get_extents().intervalx.tolist() for path in shade.get_paths()] == [[0.5, 1.5]]
        assert axes.get_ylabel()


def test_curves_are_smoothed_over_a_tenth_of_the_steps() -> None:
    assert plots.moving_mean([1.0] * 30 + [4.0] * 10).tolist() == [1.0] * 28 + [1.6, 2.2, 2.8, 3.4] + [4.0] * 8


def test_threshold_of_the_guard_is_shown_where_it_applies(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    write_rows(run_dir / "train_log.jsonl", [{"step": step, plots.GUARDED: 0.7} for step in (1, 2)])
    for config, expected in (("guard: {enabled: true, min_auroc: 0.52}", [0.52]), ("guard: {enabled: false}", [])):
        (run_dir / "config.yaml").write_text(config)
        (axes,) = drawn(monkeypatch, run_dir)["training_curves"].axes
        assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_label() == "guard"] == expected


def test_one_extreme_score_does_not_squeeze_the_histogram(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    rows = [{"completion": "a", "correct": at % 2 == 0, "score": at / 200} for at in range(200)]
    write_rows(run_dir / "traces.jsonl", [*rows, {"completion": "b", "correct": False, "score": -1000.0}])
    (axes,) = drawn(monkeypatch, run_dir)["reward_distributions"].axes
    assert -0.2 < axes.get_xlim()[0] < axes.get_xlim()[1] < 1.2
    for bars in axes.containers:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)


def test_histogram_excludes_unlabelled_and_unscored_traces(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    (axes,) = drawn(monkeypatch, run_dir)["reward_distributions"].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["right (1)", "wrong (2)"]
    for bars in axes.containers:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)  # shares of right or of wrong traces


def test_reranking_figure_shows_the_curves_that_exist(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    (axes,) = drawn(monkeypatch, run_dir)["rerank_vs_n"].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines == {
        "learned reward": [[1, 0.4], [2, 0.5], [4, 0.6]],
        "random": [[1, 0.4], [2, 0.4], [4, 0.4]],
    }


def test_reliability_diagram_has_no_empty_bins_and_names_the_error(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> None:
    (axes,) = drawn(monkeypatch, run_dir)["calibration"].axes
    (bars,) = axes.containers
    assert bars.lines[0].get_xydata().tolist() == [[0.2, 0.5], [0.7, 0.6]]
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([0.1, 0.9]), pytest.approx([0.3, 0.6])]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["learned reward, ECE 0.050"]


def test_rewards_by_position_are_drawn_at_the_middle_of_each_part(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> None:
    (axes,) = drawn(monkeypatch, run_dir)["reward_by_position"].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines == {"right": [[25, 0.5]], "wrong": [[25, 0.1], [75, -0.5]]}


def test_first_wrong_step_figure_shows_the_known_errors(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    figure = drawn(monkeypatch, run_dir)["first_wrong_step"]
    (axes,) = figure.axes
    assert [patch.get_height() for patch in axes.patches] == [0.9, 0.3]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["7 planted errors"]
    (bar,) = [collection for collection in axes.collections if collection.get_segments()]
    assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([0.8, 0.95])


def test_missing_files_are_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "train_log.jsonl").unlink()
    (run_dir / "metrics.json").write_text("{}")
    assert [file.stem for file in plots.plot_run(run_dir)] == ["reward_distributions"] * 2
    out = capsys.readouterr().out
    assert "training_curves: skipped, " in out
    assert "train_log.jsonl is missing" in out
    assert "metrics.json has no data" in out


def test_script_without_traces_ends_in_one_line(tmp_path: Path) -> None:
    done = run_python(SCRIPT, tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"plot_run: {tmp_path / 'traces.jsonl'} is missing: evaluate the run first\n"
    assert not (tmp_path / "figures").exists()


def test_script_runs_from_any_folder(run_dir: Path) -> None:
    done = run_python(SCRIPT, run_dir, cwd=run_dir)
    assert done.returncode == 0, done.stderr
    assert (run_dir / "figures" / "rerank_vs_n.png").exists()
