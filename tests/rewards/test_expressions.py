from fractions import Fraction

import pytest

from reasoning_irl.rewards.expressions import MAX_TOKENS, parse_expression, read_question, uses_at_most


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 + 4 * 5", 23),
        ("(3+4)*5", 35),
        ("20 - 4 - 5", 11),
        ("20 - (4 - 5)", 21),
        ("24 / 4 / 2", 3),
        ("8 / (3 - 8 / 3)", 24),
        ("1 / 3 * 3", 1),
        ("1/3", Fraction(1, 3)),
        ("7", 7),
        ("((7))", 7),
        ("3 × 8 ÷ 2 − 1", 11),
        ("3*8 = 24", 24),
        ("3*8 = 24.", 24),
        (r"\boxed{3 \times (4 + 4)}", 24),
        (r"\frac{3 + 5}{2} \times 4", 16),
        (r"\frac{\frac{8}{2}}{2}", 2),
        ("$3 + 4$.", 7),
    ],
)
def test_values_are_exact(text: str, value: Fraction) -> None:
    expression = parse_expression(text)
    assert expression is not None
    assert expression.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "(3",
        "3)",
        "3 +",
        "* 3",
        "3 4",
        "3 + + 4",
        "3(4)",
        "-3 + 4",
        "3.5 * 2",
        "1e9",
        "x + 1",
        "1/0",
        "1/(2 - 2)",
        "3 * 8 = 25",
        "3 * 8 = 24 = 24",
        "3 // 2",
        "٣ + ٤",
        "0x10",
        "1_000",
    ],
)
def test_text_that_is_not_an_expression_has_no_value(text: str) -> None:
    assert parse_expression(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch pwned')",
        "(lambda: 3)()",
        "exit()",
        "[].__class__",
        "9**9**9",
        "9**9**9**9**9**9",
        "(" * 100_000 + "1" + ")" * 100_000,
        "(" * 199 + "1" + ")" * 199,
        "1" * 100_000,
        "999999999*" * 1000 + "1",
        "1+" * MAX_TOKENS + "1",
        r"\frac{" * 60 + "1",
        "3 + 4\x00",
        "24 if 1 else 0",
    ],
)
def test_malicious_text_is_never_run_and_is_rejected_quickly(text: str) -> None:
    assert parse_expression(text) is None


def test_largest_allowed_expression_is_read() -> None:
    depth = (MAX_TOKENS - 1) // 2
    expression = parse_expression("(" * depth + "1" + ")" * depth)
    assert expression is not None
    assert expression.value == 1


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("3 + 4", True),
        ("4 * 4", True),
        ("4 * 4 * 4", False),  # given only twice
        ("34", False),  # digits may not be joined
        ("3 + 5", False),
        ("3 + 4 - 4", True),
    ],
)
def test_each_number_may_be_used_as_often_as_it_is_given(text: str, fits: bool) -> None:
    expression = parse_expression(text)
    assert expression is not None
    assert uses_at_most(expression, (3, 4, 4)) == fits


def test_form_ignores_operand_order_and_extra_parentheses() -> None:
    def form(text: str) -> str:
        expression = parse_expression(text)
        assert expression is not None
        return expression.form

    assert form("3 * (4 + 5)") == form("((5+4))*3")
    assert form("5 - 4") != form("4 - 5")
    assert form("2 * 12") != form("3 * 8")


@pytest.mark.parametrize("question", ["", "How much is 3 * 8?", "Use the numbers 3 and 8, each at most once."])
def test_other_questions_have_no_numbers_and_target(question: str) -> None:
    assert read_question(question) is None
