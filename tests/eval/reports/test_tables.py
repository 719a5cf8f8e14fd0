"""The tables of an evaluation: which metrics they show, and how they look as text."""

from typing import Any

import pytest

from reasoning_irl.eval.reports.tables import (
    DIFFERENCES,
    POLICY,
    QUESTIONS,
    WHERE,
    WHICH_TO_CHOOSE,
    Table,
    cell,
    layout,
    section,
    table,
    undefined,
    verdicts,
    with_aliases,
)
from reasoning_irl.eval.scoring.methods import BASELINES, CHOOSING, LOCATING, SCORED
from reasoning_irl.metrics.summary import Summary

SCORED_RUN: dict[str, Any] = {
    "n_test_problems": 7,
    "supervision": "demonstrations",
    "n_rerank": 4,
    "n_planted": 3,
    "n_natural": 2,
    "n_planted/operator_flip": 3,
    "n_planted/early": 1,
    "reward/auroc": 0.8456,
    "reward/auroc/low": 0.81,
    "reward/auroc/high": 0.879,
    "random/auroc": 0.5,
    "reward_minus_random/auroc": 0.3456,
    "reward_minus_random/auroc/verdict": "better",
    "reward/rerank@1|4": 0.75,
    "majority@4": 0.5,
    "majority@4/low": 0.4,
    "majority@4/high": 0.6,
    "reward/first_error_hit@1/planted": 1.0,
    "reward/first_error_hit@1/planted/operator_flip": 0.667,
    "reward/first_error_hit@1/planted/operator_flip/low": 0.5,
    "reward/first_error_hit@1/planted/operator_flip/high": 0.8,
    "pass@1": 0.25,
    "pass@1/low": 0.2,
    "pass@1/high": 0.3,
}


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({}, "-"),
        ({"m": None, "m/note": "undefined"}, "-"),
        ({"m": 0.84567}, "0.846"),
        ({"m": 0.84567, "m/low": 0.81, "m/high": 0.8789}, "0.846 [0.810, 0.879]"),
        ({"m": 0.84567, "m/low": None, "m/high": None}, "0.846"),
        ({"m": 0.0712, "m/low": 0.01, "m/high": 0.1, "m/verdict": "better"}, "+0.071 better"),
        ({"m": -0.0712, "m/verdict": "cannot tell"}, "-0.071 cannot tell"),
        ({"m": 0.0}, "0.000"),
    ],
)
def test_cell(metrics: dict[str, Any], text: str) -> None:
    assert cell(metrics, "m") == text


def test_cell_without_intervals() -> None:
    assert cell({"m": 0.5, "m/low": 0.4, "m/high": 0.6}, "m", intervals=False) == "0.500"


def test_section_has_the_columns_and_rows_that_have_values() -> None:
    shown = Table(
        WHERE, "A title", {"one": "a", "two": "b", "three": "c"}, {"reward": "reward", "x": "other", "y": "y"}
    )
    metrics = {"reward/a": 0.5, "reward/c": 1.0, "reward/c/low": 0.9, "reward/c/high": 1.0, "x/c": 0.25, "y/b": None}
    assert section(shown, metrics).split("\n") == [
        "A title",
        "          one    three",
        "  reward  0.500  1.000 [0.900, 1.000]",
        "  other   -      0.250",
    ]
    assert section(shown, {"y/b": None}) == ""


def test_layout_asks_every_question_and_names_every_method() -> None:
    tables = layout(SCORED_RUN)
    assert {each.question for each in tables} == set(QUESTIONS)
    by_question = {each.question: set(each.methods) for each in tables}
    assert by_question[WHICH_TO_CHOOSE] == set(CHOOSING)
    assert by_question[WHERE] == set(LOCATING)
    assert by_question[DIFFERENCES] == {f"reward_minus_{name}" for name in BASELINES}
    assert [set(each.methods) for each in tables if each.title.startswith("Telling right")] == [set(SCORED)]
    (by_kind,) = [each for each in tables if each.title == "hit@1 of planted errors, by kind and position"]
    assert by_kind.columns == {
        "operator_flip (3)": "first_error_hit@1/planted/operator_flip",
        "early (1)": "first_error_hit@1/planted/early",
    }


def test_layout_of_samples_alone_is_the_policy_table() -> None:
    sampled = {"pass@1": 0.25, "pass@1/low": 0.2, "oracle@2": 0.5, "oracle@2/low": 0.4, "seconds": 3.0}
    sampled |= {"format_ok": 1.0, "format_ok/low": 1.0}
    (only,) = layout(sampled)
    assert (only.question, list(only.columns), list(only.methods)) == (POLICY, ["pass@1", "format_ok"], ["policy"])
    assert layout({"seconds": 3.0}) == []


def test_layout_of_several_policies_has_a_row_for_each() -> None:
    metrics = {f"{policy}/pass@1{end}": 0.5 for policy in ("warm_start", "airl") for end in ("", "/low")}
    (only,) = layout(metrics | {"pass@1": 0.5, "pass@1/low": 0.4})
    assert list(only.methods) == ["warm_start", "airl"]
    assert list(only.columns) == ["pass@1"]


def test_policy_metrics_are_found_under_the_prefixes_of_the_tables() -> None:
    shown = with_aliases(SCORED_RUN)
    assert [shown[f"policy/pass@1{end}"] for end in ("", "/low", "/high")] == [0.25, 0.2, 0.3]
    assert [shown[f"majority/rerank@1|4{end}"] for end in ("", "/low", "/high")] == [0.5, 0.4, 0.6]
    assert shown["reward/auroc"] == SCORED_RUN["reward/auroc"]


def test_table_shows_sections_with_values_under_a_heading() -> None:
    blocks = table(SCORED_RUN).split("\n\n")
    assert blocks[0] == "7 test problems, supervision: demonstrations; 95 % intervals over problems"
    assert [block.split("\n")[0] for block in blocks[1:]] == [
        "Share of problems answered right, choosing one of 4 samples",
        "Telling right traces from wrong ones (higher is better)",
        "First wrong step, 3 planted errors",
        "hit@1 of planted errors, by kind and position",
        "The reward minus each baseline (not corrected for multiple comparisons)",
    ]
    text = "\n".join(blocks)
    assert "reward  0.846 [0.810, 0.879]" in text
    assert "majority  0.500 [0.400, 0.600]" in text
    assert "reward  0.667\n" in text  # without an interval
    assert "random  +0.346 better" in text
    assert "Undefined" not in text


def test_undefined_metrics_are_grouped_by_their_reason() -> None:
    summary = Summary(10, 0)
    for metric in "abcde":
        summary.missing(f"reward/{metric}", "undefined: all are right")
    summary.missing("frozen/a", "not scored: it needs a folder")
    summary.missing("reward_minus_frozen/a", "undefined: a difference")
    assert undefined(summary.metrics).split("\n") == [
        "Undefined",
        "  reward/a, reward/b, reward/c and 2 more: all are right",
        "  frozen/a: not scored: it needs a folder",
    ]
    assert undefined({"reward/a": 0.5}) == ""


def test_verdicts_have_one_line_per_main_metric() -> None:
    metrics: dict[str, Any] = {"other/file": "their/traces.jsonl", "other/supervision": "verifier", "n_rerank": 4}
    metrics |= {"reward/rerank@1|4": 0.75, "other/rerank@1|4": 0.5, "reward_minus_other/rerank@1|4": 0.25}
    metrics |= {f"reward_minus_other/rerank@1|4/{end}": value for end, value in (("low", 0.1), ("high", 0.4))}
    metrics |= {"reward_minus_other/rerank@1|4/verdict": "better"}
    metrics |= {"reward/auroc": 0.5, "other/auroc": 0.75, "reward_minus_other/auroc": -0.25}
    metrics |= {"reward_minus_other/auroc/verdict": "cannot tell", "other/auroc_within_prompt/note": "undefined: why"}
    assert verdicts(metrics).split("\n") == [
        "This reward model against that of their/traces.jsonl (supervision: verifier)",
        "  rerank@1|4: 0.750 against 0.500, better by 0.250 [+0.100, +0.400]",
        "  auroc_within_prompt: undefined: why",
        "  auroc: 0.500 against 0.750, cannot tell -0.250",
        "  first_error_hit@1/natural: undefined",
    ]
