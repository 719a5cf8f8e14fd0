"""Parses arithmetic expressions written by a policy with a small grammar: no text is ever run as code.

    sum = product (("+" | "-") product)*        product = atom (("*" | "/") atom)*        atom = number | "(" sum ")"

Numbers are unsigned integers; values are exact. The bounded length also bounds nesting and the size of values.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from reasoning_irl.rewards.answers import calculate, parse_number, plain_answer

MAX_CHARACTERS, MAX_TOKENS = 400, 64
_TOKEN = re.compile(r"\s*([0-9]{1,9}(?![0-9.])|[-+*/()])")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LATEX_SIGNS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\left": "", r"\right": ""}


@dataclass(frozen=True)
class Expression:
    """An expression's value, its numbers in the order written, and its form with the operands of + and * sorted."""

    value: Fraction
    numbers: tuple[int, ...]
    form: str


def parse_expression(text: str) -> Expression | None:
    """Parses an expression that may end in `= value`; None if it is invalid, has no value or `value` is wrong."""
    if len(text) > MAX_CHARACTERS:
        return None
    while (fraction := _FRACTION.sub(r"((\1)/(\2))", text)) != text:  # innermost first
        text = fraction
    for sign, plain in _LATEX_SIGNS.items():
        text = text.replace(sign, plain)
    text, equals, result = plain_answer(text).translate(_SIGNS).strip("$`. \n").partition("=")
    tokens = _tokens(text)
    if tokens is None:
        return None
    expression, rest = _sum(tokens)
    if expression is None or rest or (equals and parse_number(result) != expression.value):
        return None
    return expression


def uses_at_most(expression: Expression, numbers: Sequence[int]) -> bool:
    """Whether the expression uses only the given numbers, each at most as often as it is given."""
    return all(expression.numbers.count(n) <= list(numbers).count(n) for n in expression.numbers)


def _tokens(text: str) -> list[str] | None:
    tokens, at, text = list[str](), 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) == MAX_TOKENS:
            return None
        tokens.append(match[1])
        at = match.end()
    return tokens


# Each parser returns the expression that it read (None for an error) and the remaining tokens.
_Read = tuple[Expression | None, list[str]]


def _sum(tokens: list[str]) -> _Read:
    left, rest = _product(tokens)
    while left is not None and rest and rest[0] in "+-":
        operator = rest[0]
        right, rest = _product(rest[1:])
        left = _combine(left, operator, right)
    return left, rest


def _product(tokens: list[str]) -> _Read:
    left, rest = _atom(tokens)
    while left is not None and rest and rest[0] in "*/":
        operator = rest[0]
        right, rest = _atom(rest[1:])
        left = _combine(left, operator, right)
    return left, rest


def _atom(tokens: list[str]) -> _Read:
    if tokens and tokens[0].isdigit():
        number = int(tokens[0])
        return Expression(Fraction(number), (number,), str(number)), tokens[1:]
    if tokens and tokens[0] == "(":
        inner, rest = _sum(tokens[1:])
        return (inner, rest[1:]) if rest and rest[0] == ")" else (None, rest)
    return None, tokens


def _combine(left: Expression, operator: str, right: Expression | None) -> Expression | None:
    value = None if right is None else calculate(left.value, operator, right.value)
    if right is None or value is None:
        return None
    forms = [left.form, right.form]
    a, b = sorted(forms) if operator in "+*" else forms
    return Expression(value, left.numbers + right.numbers, f"({a}{operator}{b})")


_QUESTION = re.compile(r"Use the numbers ([0-9, ]+) and ([0-9]+), each at most once, .* that equals ([0-9]+)\.")


def read_question(question: str) -> tuple[tuple[int, ...], int] | None:
    """(numbers, target) of a question written by `ask` in data/countdown.py, or None."""
    match = _QUESTION.fullmatch(question.strip())
    return ((*map(int, match[1].split(",")), int(match[2])), int(match[3])) if match else None
