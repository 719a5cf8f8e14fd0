import pytest

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.data.countdown import Problem, ask
from reasoning_irl.rewards.checking import is_right, vote
from reasoning_irl.rewards.options import show_options

MADE = ask(Problem((3, 8, 4, 4), 24, (), ""))
ASKED = show_options("Which?", {"A": "Aspirin", "B": "Aspirin and heparin", "C": "Heparin", "D": "heparin"})


@pytest.mark.parametrize(
    ("candidate", "right"),
    [
        ("3 * 8", True),
        ("8 * 3", True),
        ("(4 + 4) * 3", True),
        ("4 * 4 + 8 = 24", True),
        ("24", False),  # not one of the numbers
        ("3 * 4 + 3 * 4", False),  # 3 is given only once
        ("3 + 8", False),
        ("__import__('os')", False),
        (None, False),
    ],
)
def test_any_expression_of_the_numbers_that_reaches_the_target_is_right(candidate: str | None, right: bool) -> None:
    assert is_right(candidate, "3 * 8", AnswerKind.expression, MADE) == right


def test_expression_is_right_only_for_its_own_question() -> None:
    assert not is_right("3 * 8", "3 * 8", AnswerKind.expression, "How much is 3 * 8?")
    assert not is_right("3 * 8", "3 * 8", AnswerKind.expression, ask(Problem((3, 8), 25, (), "")))


@pytest.mark.parametrize(
    ("candidate", "reference", "right"),
    [
        ("A", "A. Aspirin", True),
        ("(a)", "A. Aspirin", True),
        ("aspirin", "A. Aspirin", True),
        ("B", "A. Aspirin", False),
        ("Aspirin and heparin", "A. Aspirin", False),
        ("Aspirin", "B. Aspirin and heparin", False),
        ("D", "C. Heparin", True),  # two options are the same answer
        ("because", "B. Aspirin and heparin", False),
        (None, "A. Aspirin", False),
    ],
)
def test_option_can_be_named_by_letter_or_text(candidate: str | None, reference: str, right: bool) -> None:
    assert is_right(candidate, reference, AnswerKind.option, ASKED) == right


def test_plain_answers_are_compared_as_numbers_or_text() -> None:
    assert is_right("18.0", "18", AnswerKind.text, "How many?")
    assert not is_right("3 * 6", "18", AnswerKind.text, "How many?")
    assert not is_right(None, "18", AnswerKind.text, "How many?")


def test_equal_answers_have_equal_votes() -> None:
    assert len({vote(text, AnswerKind.option, ASKED) for text in ("A", "(a)", "Aspirin", "A. aspirin")}) == 1
    assert vote("B", AnswerKind.option, ASKED) != vote("A", AnswerKind.option, ASKED)
    assert vote(" Neither. ", AnswerKind.option, ASKED) == vote("neither", AnswerKind.option, ASKED)
    assert vote("3 * 8", AnswerKind.expression, MADE) == vote("(8*3) = 24", AnswerKind.expression, MADE)
    assert vote("18.0", AnswerKind.text, "") == vote("$18", AnswerKind.text, "")
    assert all(vote(None, kind, MADE) is None for kind in AnswerKind)


def test_expressions_do_not_vote_by_value() -> None:
    """Trap: the question states the target, so a vote by value would work as a verifier."""
    assert vote("3 * 8", AnswerKind.expression, MADE) != vote("4 * 4 + 8", AnswerKind.expression, MADE)
