"""The table of scoring methods agrees with itself, with the functions that score, and with the figures."""

import pytest

from figures.style import PALETTE
from reasoning_irl.eval.scoring.methods import (
    BASELINES,
    BY_NAME,
    CHOOSING,
    LOCATING,
    METHODS,
    OTHER,
    REWARD,
    SCORED,
    TOKEN_METHODS,
    WEIGHTING,
    Output,
    difference,
    is_method_metric,
    names_of,
)
from reasoning_irl.eval.scoring.values import COMBINATIONS, TOKEN_SCORERS, TRACE_SCORERS


def test_names_and_labels_are_unique() -> None:
    assert len({method.name for method in METHODS}) == len(BY_NAME) == len(METHODS)
    assert len({method.label for method in METHODS}) == len(METHODS)
    assert not any("/" in name or "@" in name for name in BY_NAME)


def test_every_method_has_the_function_that_its_output_needs() -> None:
    """Trap: a method in the table without a function, or a function that no table shows."""
    assert set(TOKEN_METHODS) == {
        *TOKEN_SCORERS,
        *COMBINATIONS,
        OTHER,
    }  # the other model's values are read from its file
    assert set(names_of(Output.trace_score)) == set(TRACE_SCORERS)
    assert {part for parts in COMBINATIONS.values() for part in parts} <= set(TOKEN_SCORERS)
    assert {name for name, method in BY_NAME.items() if method.needs} == set(TOKEN_METHODS)


def test_groups_of_methods() -> None:
    assert TOKEN_METHODS[:6] == ("reward", "other", "frozen", "logprob", "entropy", "sft")
    assert (*TOKEN_METHODS, "length", "random", "oracle") == SCORED
    assert (*SCORED[:-1], "majority", "oracle") == CHOOSING
    assert (*TOKEN_METHODS, "chance", "first_step", "last_step") == LOCATING
    assert {*BASELINES, REWARD, "oracle"} == set(BY_NAME)
    assert REWARD not in BASELINES
    assert "oracle" not in BASELINES
    assert {*WEIGHTING, "random", "oracle"} == set(SCORED)


def test_colours_are_in_the_palette_and_differ_within_a_figure() -> None:
    assert {method.colour for method in METHODS} <= set(PALETTE)
    for names in (CHOOSING, LOCATING):
        styles = [(BY_NAME[name].colour, BY_NAME[name].linestyle, BY_NAME[name].output) for name in names]
        assert len(set(styles)) == len(styles)


@pytest.mark.parametrize(
    ("name", "is_of_method"),
    [
        ("reward/auroc", True),
        ("other/rerank@1|8/low", True),
        ("chance/first_error_hit@1/planted", True),
        ("random/auroc/note", True),
        ("majority/rerank@1|8", True),
        (difference("logprob", "auroc"), True),
        (difference("first_step", "first_error_map/natural") + "/verdict", True),
        # The metrics of evaluate.py and of the quickstart are kept when an evaluation of the reward is repeated.
        ("oracle@8/low", False),
        ("majority@8", False),
        ("airl/pass@1", False),
        ("warm_start/majority@8/high", False),
        ("pass@1", False),
        ("reward", False),
        ("reward/", False),
        ("reward_minus_pass@1/low", False),
        ("seconds/total", False),
        ("choice/reward/aggregation", False),
    ],
)
def test_metrics_of_methods_are_recognised_by_name(name: str, is_of_method: bool) -> None:
    assert is_method_metric(name) == is_of_method


def test_note_of_an_unscored_method_says_what_it_needs() -> None:
    assert BY_NAME["other"].not_scored == "not scored: it needs eval.against"
    for name in ("reward", "frozen", "logprob", "entropy"):
        assert "model." in BY_NAME[name].not_scored
