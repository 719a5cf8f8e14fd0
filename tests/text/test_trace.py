"""The text format of a trace, and the spans of its parts."""

import pytest

from reasoning_irl.text.trace import (
    answer_span,
    extract_answer,
    format_trace,
    is_well_formed,
    reasoning_span,
    step_spans,
)


def steps_of(trace: str) -> list[str]:
    return [trace[slice(*span)] for span in step_spans(trace)]


def test_formatted_trace_has_the_parts_that_it_was_made_of() -> None:
    trace = format_trace("3 + 4 = 7\n7 - 2 = 5", "5")
    assert trace == "<think>\n3 + 4 = 7\n7 - 2 = 5\n</think>\n<answer>\n5\n</answer>"
    assert trace[slice(*reasoning_span(trace))].strip() == "3 + 4 = 7\n7 - 2 = 5"
    assert extract_answer(trace) == "5"
    assert steps_of(trace) == ["3 + 4 = 7", "7 - 2 = 5", "5"]
    assert is_well_formed(trace)


@pytest.mark.parametrize(
    ("trace", "reasoning"),
    [
        ("<think>a</think>b", "a"),
        ("a</think>b", "a"),  # without an opening tag, from the start
        ("<think>a<answer>b</answer>", "a"),  # without a closing tag, up to the answer
        ("<think>a", "a"),
        ("a", "a"),
        ("<think></think>", ""),
        ("", ""),
        ("x<think>a</think>b</think>", "a"),
    ],
)
def test_reasoning_span(trace: str, reasoning: str) -> None:
    assert trace[slice(*reasoning_span(trace))] == reasoning


@pytest.mark.parametrize(
    ("trace", "answer"),
    [
        ("<answer>7</answer>", "7"),
        ("<answer>\n 7 apples \n</answer>", "7 apples"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer>1</answer><answer>2</answer>", "1"),
        ("<answer>7", None),
        ("<answer> \n</answer>", None),
        ("7</answer>", None),
        ("", None),
    ],
)
def test_answer_is_closed_and_not_empty(trace: str, answer: str | None) -> None:
    assert extract_answer(trace) == answer
    span = answer_span(trace)
    assert (None if span is None else trace[slice(*span)]) == answer


@pytest.mark.parametrize(
    ("trace", "steps"),
    [
        ("<think>\na\n\n  b \n</think>\n<answer>\nc\n</answer>", ["a", "  b ", "c"]),
        ("a\nb", ["a", "b"]),
        ("<think>\na\n</think>\nignored", ["a"]),
        ("<think>\na\n</think>\n<answer>\n</answer>", ["a"]),
        ("<think>\n \n</think>", []),
        ("", []),
    ],
)
def test_steps_are_non_empty_lines_and_the_answer(trace: str, steps: list[str]) -> None:
    assert steps_of(trace) == steps


@pytest.mark.parametrize(
    ("completion", "well_formed"),
    [
        (format_trace("3 + 4 = 7", "7"), True),
        ("<think>so</think><answer>7</answer>\n", True),
        ("<think></think><answer>7</answer>", True),
        ("<think>so</think><answer> </answer>", False),
        ("<think>so</think>7", False),
        ("so</think><answer>7</answer>", False),
        ("<answer>7</answer><think>so</think>", False),
        ("<think>so</think><answer>7</answer> and more", False),
        ("<think>so</think><think>so</think><answer>7</answer>", False),
        ("<think>so</think><answer>7</answer><answer>8</answer>", False),
        ("<think>so<answer>7</answer></think><answer>7</answer>", False),
    ],
)
def test_well_formed_completion_has_each_element_once(completion: str, well_formed: bool) -> None:
    assert is_well_formed(completion) == well_formed
