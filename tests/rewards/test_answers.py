from fractions import Fraction

import pytest

from reasoning_irl.rewards.answers import (
    answers_match,
    find_boxed,
    find_equations,
    find_magnitudes,
    find_number,
    majority_key,
    parse_number,
    plain_answer,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("18.0", 18),
        ("1,800", 1800),
        ("$18", 18),
        ("$1,800.50", Fraction(3601, 2)),
        ("1/2", Fraction(1, 2)),
        ("-3", -3),
        ("-$3", -3),
        ("$-3", -3),
        ("−3", -3),
        ("18 apples", 18),
        ("5kg", 5),
        ("50%", 50),
        ("18.", 18),
        (" .5 ", Fraction(1, 2)),
        ("**18**", 18),
        ("\\boxed{18}", 18),
        ("x=-3", -3),
    ],
)
def test_parse_number_reads_one_number(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "none", "3 apples and 4 pears", "3-4", "1/0", "12/5/2020", "1,80", "1.2.3", "B12", "1e5", "9" * 5000],
)
def test_parse_number_rejects_text_that_is_not_one_number(text: str) -> None:
    assert parse_number(text) is None


def test_find_number_returns_the_span_of_the_number() -> None:
    text = "about -$1,800 left"
    found = find_number(text)
    assert found is not None
    assert text[slice(*found[0])] == "-$1,800"


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        ("18.0", "18"),
        ("1,800", "1800"),
        ("18 apples", "18"),
        ("18", "18 apples"),
        ("0.5", "1/2"),
        ("The answer is 18.", "18"),
        ("  Vitamin   B12. ", "vitamin b12"),
        ("18.0 Apples", "18 apples"),
        (r"\boxed{18}", "18 apples"),
        (r"so \boxed{\text{vitamin B12}}", "Vitamin B12"),
        (r"$\frac{1}{2}$", "0.5"),
        (r"\$1{,}800", "1800"),
    ],
)
def test_equal_answers_match(candidate: str, reference: str) -> None:
    assert answers_match(candidate, reference)


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        (None, "18"),
        ("", "18"),
        ("19", "18"),
        ("18", "-18"),
        ("18 19", "18"),
        ("vitamin B6", "vitamin B12"),
        ("12", "vitamin B12"),
        ("grade 2 tumour", "type 2 diabetes"),
        ("2", "type 2 diabetes"),
        ("2 weeks", "2 months"),
    ],
)
def test_different_answers_do_not_match(candidate: str | None, reference: str) -> None:
    assert not answers_match(candidate, reference)


def test_equal_numbers_have_equal_votes() -> None:
    assert len({majority_key(text) for text in ("18", "18.0", "$18", "18 apples", "36/2")}) == 1
    assert majority_key("  Yes.") == majority_key("yes")
    assert majority_key("18") != majority_key("19")
    assert majority_key(None) is None


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("She sold 48/2 = 24 clips.", "48 / 2 = 24"),
        ("48+24=72", "48 + 24 = 72"),
        ("2 * $3 = $6", "2 * 3 = 6"),
        ("2 x 3 = 6", "2 * 3 = 6"),
        ("2x3=6.", "2 * 3 = 6"),
        ("2 × 3 = 6", "2 * 3 = 6"),
        ("1,000 - 1 = 999", "1000 - 1 = 999"),
        ("3 - 5 = -2", "3 - 5 = -2"),
        ("0.2 x 50 = $10.00", "1/5 * 50 = 10"),
        (".5*10 = 5", "1/2 * 10 = 5"),
        ("1. 3 + 4 = 7", "3 + 4 = 7"),
        ("- 3 + 4 = 7", "3 + 4 = 7"),
        ("so **3 + 4 = 7**", "3 + 4 = 7"),
        ("a box 3 + 4 = 7", "3 + 4 = 7"),
        ("2 + 3 = 5 + 4 = 9", "5 + 4 = 9"),
    ],
)
def test_equations_of_one_operation_are_found(text: str, equation: str) -> None:
    (found,) = find_equations(text)
    assert f"{found.left} {found.operator} {found.right} = {found.result}" == equation
    assert found.holds
    assert text[found.left_span[0]].isdigit() or text[found.left_span[0]] == "."


@pytest.mark.parametrize(
    "text",
    [
        "2 + 3 + 4 = 9",
        "2 x 3 x 4 = 24",
        "2 ** 3 + 4 = 12",
        "1/2 * 10 = 5",
        "1/2 = 3/6",
        "3 - 1/2 = 2.5",
        "-3 + 5 = 2",
        "2 + 3 = 1 + 4",
        "10 / 50 = 20%",
        "1 1/2 = 1.5",
        "3 + 4x = 7x",
        "2 + 3 =\n5",
        "v1.3 + 4 = 7",
        "3 + 4 = 7.5.1",
    ],
)
def test_parts_of_longer_expressions_are_not_equations(text: str) -> None:
    assert find_equations(text) == []


def test_wrong_equations_do_not_hold() -> None:
    assert [equation.holds for equation in find_equations("2 + 2 = 5\n5 / 0 = 0\n10 / 3 = 3.33\n2 * 2 = 4")] == [
        False,
        False,
        False,
        True,
    ]


def test_equation_spans_exclude_the_currency() -> None:
    text = "cost: $2,000 - $1.50 = $1,998.50!"
    (found,) = find_equations(text)
    spans = (found.left_span, found.operator_span, found.right_span, found.result_span, found.span)
    assert [text[slice(*span)] for span in spans] == [
        "2,000",
        "-",
        "1.50",
        "1,998.50",
        "2,000 - $1.50 = $1,998.50",
    ]


def test_digits_in_names_are_not_magnitudes() -> None:
    assert [value for _, value in find_magnitudes("48/2, 3x4, $1,800, B12 and 2.5")] == [
        48,
        2,
        3,
        4,
        1800,
        Fraction(5, 2),
    ]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{18}", "18"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} then \boxed {2}.", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{a \boxed{b}}", r"a \boxed{b}"),
        (r"{\boxed{a}}", "a"),
        (r"\boxed{}", ""),
        (r"}} \boxed{a}", "a"),
        (r"\boxed 5", None),
        (r"\boxed{5", None),
        ("{5}", None),
    ],
)
def test_find_boxed_balances_braces(text: str, inside: str | None) -> None:
    assert find_boxed(text) == inside


def test_plain_answer_removes_all_boxes() -> None:
    assert plain_answer(r"\boxed{\boxed{\text{ 1{,}800 }}}") == "1,800"


def test_unclosed_boxes_are_read_in_linear_time() -> None:
    assert find_boxed(r"\boxed{" * 20_000) is None
    assert plain_answer(r"\boxed{" * 300 + "7" + "}" * 300) == "7"
