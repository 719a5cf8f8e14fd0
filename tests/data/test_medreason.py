import json
from typing import Any

import pytest

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.data.medreason import TEST_SHARE, is_test_question, medreason_record
from reasoning_irl.data.records import NoExpertError, Row
from reasoning_irl.rewards.checking import is_right
from reasoning_irl.rewards.options import find_options
from reasoning_irl.text.trace import format_trace
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import MEDREASON

OPTIONS = {"A": "A cold", "B": "A clot", "C": "A clot of cheese", "D": "None"}


def row(**values: Any) -> Row:
    return Row("train row 7", "train-7", MEDREASON | values)


def test_question_shows_the_options_and_the_answer_is_one_of_them() -> None:
    record = medreason_record(row(), "Think.")
    assert record.question == (
        "Which of these is a cause of a stroke:\n\nA. A cold\nB. A clot\nC. A clot of cheese\nD. None"
    )
    assert record.target == format_trace(MEDREASON["reasoning"], "B. A clot")
    assert (record.id, record.answer, record.answer_kind) == ("medreason-train-7", "B. A clot", AnswerKind.option)
    for said in ("B", "B.", "(B)", "a clot"):
        assert is_right(said, record.answer, record.answer_kind, record.question)
    for said in ("A", "A clot of cheese", "Because of a clot", "A clot or none"):
        assert not is_right(said, record.answer, record.answer_kind, record.question)


@pytest.mark.parametrize(
    "options",
    [
        MEDREASON["options"],
        "A. A cold\nB. A clot\nC. A clot of cheese\nD. None\n",
        "(A) A cold\n(B) A clot\n(C) A clot of cheese\n(D) None",
        OPTIONS,
        list(OPTIONS.values()),
        json.dumps(OPTIONS),
        {**OPTIONS, "E": None},  # in a table, every row has all keys
    ],
)
def test_options_can_be_written_in_several_formats(options: Any) -> None:
    record = medreason_record(row(options=options), "")
    assert find_options(record.question) == OPTIONS
    assert record.answer == "B. A clot"


def test_options_in_the_question_are_not_repeated() -> None:
    shown = "Which?\nA. A cold\nB. A clot"
    assert medreason_record(row(question=shown, options=""), "").question == shown
    assert medreason_record(row(question=shown, options="A. A cold\nB. A clot"), "").question == shown


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b) a clot", "B"),
        ("A clot of cheese", "C"),  # although it contains option B and begins like A
        ("A cold. Explanation: not B", "A"),
        ("The study says so. The final decision is: None.", "D"),
    ],
)
def test_answer_is_matched_to_an_option(answer: str, letter: str) -> None:
    assert medreason_record(row(answer=answer), "").answer == f"{letter}. {OPTIONS[letter]}"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"options": ""}, "open questions"),
        ({"options": None}, "open questions"),
        ({"options": "A. One alone"}, "open questions"),
        ({"options": "A. x\nB. "}, "open questions"),
        ({"options": "[not json"}, "open questions"),
        ({"answer": "An accident"}, "none of the options"),
        ({"answer": "A clot of blood"}, "none of the options"),
        ({"reasoning": "<think></think>"}, "no reasoning"),
    ],
)
def test_row_that_is_not_multiple_choice_says_why(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoExpertError, match=reason):
        medreason_record(row(**values), "")


@pytest.mark.parametrize("key", ["question", "answer", "reasoning"])
def test_missing_column_is_an_error(key: str) -> None:
    with pytest.raises(DataError, match=f"train row 7: the record has no '{key}'"):
        medreason_record(row(**{key: None}), "")


def test_test_part_depends_only_on_the_question() -> None:
    """Trap: a test part that changes with the seed, the order or the number of rows, or that splits a question."""
    questions = [f"Question {n}?" for n in range(4000)]
    chosen = [q for q in questions if is_test_question(row(question=q))]
    assert abs(len(chosen) / 4000 - TEST_SHARE) < 0.01
    assert [q for q in questions[::-1] if is_test_question(row(question=q, answer="x"))] == chosen[::-1]
    assert all(is_test_question(row(question=f"  {q.upper()}\n")) for q in chosen)
    assert chosen[:3] == ["Question 16?", "Question 27?", "Question 50?"]  # the same on every machine
