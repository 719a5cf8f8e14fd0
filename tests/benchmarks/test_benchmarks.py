"""Every comparison runs at a tiny size, and a baseline shows what became worse."""

import json
import math
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.measure import Figure, Size, Unit

TINY = Size(hidden=8, policy_layers=1, reward_layers=1, length=0.1, n_samples=4, vocabulary=500, repeats=1)


@pytest.mark.parametrize("name", list(benchmarks.COMPARISONS))
def test_comparison_runs(name: str) -> None:
    figures = benchmarks.COMPARISONS[name](TINY)
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert math.isfinite(figure.value)
        assert figure.value > 0 or "the rest" in figure.name
    assert all(figure.name in benchmarks.table(benchmarks.about(), figures) for figure in figures)


def figure(value: float, unit: Unit) -> Figure:
    return Figure(unit.name, value, unit)


def test_baseline_shows_worse_ratios_and_peaks_but_no_seconds() -> None:
    before = [figure(1.0, Unit.ratio), figure(100.0, Unit.memory), figure(1.0, Unit.seconds)]
    same = [figure(0.86, Unit.ratio), figure(101.9, Unit.memory), figure(9.0, Unit.seconds)]
    better = [figure(2.0, Unit.ratio), figure(50.0, Unit.memory)]
    assert benchmarks.worse(same, before) == benchmarks.worse(better, before) == []
    worse = benchmarks.worse([figure(0.84, Unit.ratio), figure(102.1, Unit.memory)], before)
    assert [line.partition(":")[0] for line in worse] == ["ratio", "memory"]
    assert benchmarks.worse([Figure("new", 0.1, Unit.ratio)], before) == []


def test_goals_are_least_ratios_and_most_seconds() -> None:
    assert [Figure("", value, Unit.ratio, goal=4).is_met for value in (3.9, 4.1)] == [False, True]
    assert [Figure("", value, Unit.seconds, goal=1.2).is_met for value in (1.3, 1.1)] == [False, True]


def test_command_writes_json_and_compares_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, values = tmp_path / "new" / "a.json", iter([1.0, 0.5])
    monkeypatch.setitem(benchmarks.COMPARISONS, "update", lambda _size: [figure(next(values), Unit.ratio)])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "update", "--json", str(file)])
    benchmarks.main()
    assert "| ratio | 1.00 |" in capsys.readouterr().out
    assert benchmarks.read(file) == [figure(1.0, Unit.ratio)]
    assert {"commit", "date", "machine", "threads", "torch"} < set(json.loads(file.read_text())["about"])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--baseline", str(file)])
    with pytest.raises(SystemExit, match=r"ratio: 0\.50, was 1\.00"):
        benchmarks.main()
