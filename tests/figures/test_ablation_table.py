"""The table of ablations, from hand-made metrics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from figures.ablation_table import COLUMNS, OF_METHOD, report
from reasoning_irl.utils.errors import UserError
from tests.helpers.commands import REPOSITORY, run_python

BEST, WITHIN, FIRST = "reward/rerank@1|8", "reward/auroc_within_prompt", "reward/first_error_hit@1/natural"


def write(folder: Path, name: str, values: dict[str, Sequence[float | None]], first_seed: int = 0) -> None:
    """Writes a run for each seed; `values` has a value per seed for each metric."""
    for at, of_seed in enumerate(zip(*values.values(), strict=True)):
        run = folder / f"{name}_seed{first_seed + at}"
        run.mkdir()
        metrics: dict[str, Any] = dict(zip(values, of_seed, strict=True))
        (run / "metrics.json").write_text(json.dumps({"n_rerank": 8, **metrics}))


def cells(text: str, row: str, table: int = 0) -> dict[str, str]:
    """A row of the first or the second table, by heading."""
    lines = [part for part in text.split("\n\n") if part.startswith("|")][table].splitlines()
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    (found,) = [line for line in split if line[0] == row]
    return dict(zip(split[0], found, strict=True))


def rows(text: str, table: int = 0) -> list[str]:
    lines = [part for part in text.split("\n\n") if part.startswith("|")][table].splitlines()
    return [line.split(" | ")[0].strip("| ") for line in lines[2:]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "default", {BEST: [0.5, 0.6, 0.7], WITHIN: [0.8, 0.8, 0.5], "pass@1": [0.5, 0.5, 0.5]})
    # Seed 1 has no AUROC, and no seed a first error.
    write(tmp_path, "a", {BEST: [0.6, 0.8, 0.9], WITHIN: [0.7, None, 0.6], FIRST: [None, None, None]})
    # Without seed 2, and with a seed 3 that the default lacks.
    write(tmp_path, "b", {BEST: [0.55, 0.65], "pass@8": [0.9, 0.8]})
    write(tmp_path, "b", {BEST: [0.9], "pass@8": [0.1]}, first_seed=3)
    write(tmp_path, "c", {BEST: [0.4]})
    return tmp_path


def test_default_comes_first_without_differences(folder: Path) -> None:
    text = report(folder)
    assert rows(text) == ["default", "a", "b", "c"]
    default = cells(text, "default")
    assert list(default) == ["ablation", "seeds", *COLUMNS]
    assert (default["seeds"], default["best of 8"], default["within a problem"]) == ("3", "0.600", "0.700")
    assert (default["pass@1"], default["natural first errors"]) == ("0.500", "–")


def test_difference_is_paired_with_a_t_interval(folder: Path) -> None:
    # Differences .1, .2, .2: mean 1/6, standard deviation .0577; t(.975; 2) = 4.303, so half the width is .1434.
    assert cells(report(folder), "a")["best of 8"] == "0.767 (+0.167 [+0.023, +0.310])"


def test_missing_metric_is_left_out_of_mean_and_difference(folder: Path) -> None:
    # Seeds 0 and 2: differences -.1 and .1, standard deviation .1414; t(.975; 1) = 12.706.
    assert cells(report(folder), "a")["within a problem"] == "0.650, n=2 (+0.000 [-1.271, +1.271], n=2)"
    assert cells(report(folder), "a")["natural first errors"] == "–"
    assert cells(report(folder), "b")["pass@8"] == "0.600"  # the default has none to compare with


def test_missing_seed_is_left_out_of_the_difference(folder: Path) -> None:
    b = cells(report(folder), "b")
    # Both .05 better on the shared seeds; the seed that the default lacks is only in the mean.
    assert (b["seeds"], b["best of 8"]) == ("3", "0.700 (+0.050 [+0.050, +0.050], n=2)")
    assert cells(report(folder), "c")["best of 8"] == "0.400 (-0.100)"  # one pair has no interval


def test_baselines_are_compared_on_the_same_traces(tmp_path: Path) -> None:
    frozen = {BEST: [0.5, 0.7], "frozen/rerank@1|8": [0.4, 0.4], "frozen/first_error_hit@1/natural": [0.3, 0.5]}
    write(tmp_path, "default", frozen | {"majority@8": [0.5, 0.5], "sft/processbench_f1/natural": [0.6, None]})
    write(tmp_path, "a", {BEST: [0.1, 0.2], "frozen/rerank@1|8": [0.2, 0.2]})
    text = report(tmp_path)
    assert rows(text, 1) == ["reward", "frozen", "sft", "majority"]
    assert list(cells(text, "reward", 1)) == ["method", *OF_METHOD]
    assert cells(text, "reward", 1)["best of 8"] == "0.600"
    frozen_row = cells(text, "frozen", 1)
    # Reward minus frozen: .1 and .3, standard deviation .1414.
    assert frozen_row["best of 8"] == "0.400 (+0.200 [-1.071, +1.471])"
    assert frozen_row["natural first errors"] == "0.400"  # the reward has none
    assert cells(text, "majority", 1)["best of 8"] == "0.500 (+0.100 [-1.171, +1.371])"
    assert cells(text, "sft", 1)["ProcessBench F1"] == "0.600, n=1"
    other = report(tmp_path, "a")
    assert "The reward of a and" in other
    assert cells(other, "frozen", 1)["best of 8"] == "0.200 (-0.050 [-0.685, +0.585])"


def test_only_run_folders_are_rows(folder: Path) -> None:
    for name in ("sft_seed0", "kept_seed0.1", "notes"):
        (folder / name).mkdir()
        if name != "sft_seed0":
            (folder / name / "metrics.json").write_text("{}")
    (folder / "default_seed0.log").touch()
    assert rows(report(folder)) == ["default", "a", "b", "c"]


def test_without_the_default_there_are_no_differences(tmp_path: Path) -> None:
    write(tmp_path, "a", {BEST: [0.25]})
    text = report(tmp_path)
    assert cells(text, "a")["best of 8"] == "0.250"
    assert text.count("| ---") == len(COLUMNS) + 2  # one table
    assert rows(report(tmp_path, "a"), 1) == ["reward"]


def test_unknown_row_and_empty_folder_are_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="no ablation d: choose from default, a, b, c"):
        report(folder, "d")
    with pytest.raises(UserError, match="no evaluated run"):
        report(tmp_path_factory.mktemp("empty"))


def test_script_prints_the_tables_from_any_folder(folder: Path) -> None:
    script = REPOSITORY / "figures/ablation_table.py"
    done = run_python(script, ".", "--row", "a", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == report(Path(folder), "a") + "\n"
    wrong = run_python(script, ".", "--row", "d", cwd=folder)
    assert wrong.returncode == 2
    assert wrong.stderr == "ablation_table: . has no ablation d: choose from default, a, b, c\n"
