"""Exact parsing of numbers and equations in text: values are Fractions, and no text is ever evaluated as code."""

import re
from dataclasses import dataclass
from fractions import Fraction

from reasoning_irl.text.trace import Span

OPERATORS = ("+", "-", "*", "/")

_SYNONYMS = {"x": "*", "X": "*", "×": "*", "÷": "/", "−": "-", "–": "-"}
_CURRENCY = "[$€£]"
# Digits are bounded because a policy may write endless digits, which int() refuses to convert.
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}(?![0-9])|[0-9]{1,30})(?:\.[0-9]{1,30})?|\.[0-9]{1,30})"
_OPERATOR = r"[-+*/×÷−–xX]"

_NUMBER = re.compile(rf"(?<![\w.])[-+−]?{_CURRENCY}?{_DECIMAL}(?:\s*/\s*{_DECIMAL})?")
_MAGNITUDE = re.compile(rf"(?:(?<![\w.])|(?<=[0-9][xX])){_DECIMAL}(?![0-9])")
_EQUATION = re.compile(
    rf"(?<![\w.])(?<![0-9],){_CURRENCY}?(?P<left>{_DECIMAL})"
    rf"[ \t]*(?P<operator>{_OPERATOR})[ \t]*{_CURRENCY}?(?P<right>{_DECIMAL})"
    rf"[ \t]*=[ \t]*{_CURRENCY}?(?P<result>[-−]?{_CURRENCY}?{_DECIMAL})"
    r"(?![\w%]|[.,][0-9])"
    # A result that continues (= 24/2, = 5 + 4) is an expression, not a number.
    rf"(?![ \t]*(?:[-+*/×÷−–^]|[xX](?![a-zA-Z]))[ \t]*[(]?{_CURRENCY}?\.?[0-9])"
)
_LATEX = (  # applied in this order
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[,;:! ]"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
)
_BULLET = re.compile(r"\s*[-+*–]\s+")
_BOLD = re.compile(r"(?:^|[^0-9)\s])\s*\*\*$")
# Text before a number that makes it part of something longer: an operator, a power or a number (as in 1 1/2).
_CONTINUED = re.compile(r"(?:[-+*/×÷−–^0-9]|(?<![^\W\d_])[xX])$")


@dataclass(frozen=True)
class Equation:
    """An equation `left operator right = result` found in a text.

    Spans are character offsets and exclude a currency sign before the number; `operator` is one of OPERATORS,
    whichever symbol the text uses.
    """

    left_span: Span
    operator_span: Span
    right_span: Span
    result_span: Span
    left: Fraction
    operator: str
    right: Fraction
    result: Fraction

    @property
    def span(self) -> Span:
        """From the first digit of the left operand to the end of the result."""
        return self.left_span[0], self.result_span[1]

    @property
    def holds(self) -> bool:
        """Whether the result is exactly right; a rounded result or a division by zero is not."""
        return calculate(self.left, self.operator, self.right) == self.result


def calculate(left: Fraction, operator: str, right: Fraction) -> Fraction | None:
    """The exact value of `left operator right`, or None for a division by zero; `operator` is in OPERATORS."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "/":
        return left / right if right else None
    raise ValueError(f"unknown operator {operator!r}; known are {' '.join(OPERATORS)}")


def find_number(text: str) -> tuple[Span, Fraction] | None:
    """The span (with sign and currency) and the value of the only number in a text.

    None if there is no number or more than one, if a denominator is zero, or if digits are part of a name (B12).
    """
    match = _NUMBER.search(text)
    if match is None or re.search("[0-9]", text[: match.start()] + text[match.end() :]):
        return None
    numerator, _, denominator = match.group().partition("/")
    divisor = read_decimal(denominator) if denominator else Fraction(1)
    return (match.span(), read_decimal(numerator) / divisor) if divisor else None


def parse_number(text: str) -> Fraction | None:
    """The value of the only number in a text such as 18, 18.0, $1,800, 1/2, -3, 50% or `18 apples.`, else None.

    A percent sign is read as a unit: 50% is 50.
    """
    found = find_number(text)
    return found[1] if found else None


def read_decimal(text: str) -> Fraction:
    """The value of a written decimal such as 1,800.50 or -$3."""
    return Fraction(re.sub(rf"{_CURRENCY}|[,\s]", "", text.replace("−", "-")))


def find_magnitudes(text: str) -> list[tuple[Span, Fraction]]:
    """Every plain decimal in a text, in order, without sign or currency: 48/2 contains 48 and 2."""
    return [(match.span(), read_decimal(match.group())) for match in _MAGNITUDE.finditer(text)]


def find_boxed(text: str) -> str | None:
    """The content (with balanced braces) of the last closed \\boxed{...} that is in no other box, or None."""
    found, open_braces = None, list[tuple[int, bool]]()
    for match in re.finditer(r"\\boxed\s*\{|\\.|[{}]", text, re.DOTALL):
        token = match.group()
        if token.endswith("{") and token != r"\{":
            open_braces.append((match.end(), token != "{"))
        elif token == "}" and open_braces:
            start, is_box = open_braces.pop()
            found = text[start : match.start()] if is_box else found
    return found


def plain_answer(text: str) -> str:
    """Strips LaTeX from an answer: no box, \\text{...} as plain text, \\frac{1}{2} as 1/2."""
    while (boxed := find_boxed(text)) is not None:
        text = boxed
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text.strip()


def answers_match(candidate: str | None, reference: str) -> bool:
    """Whether an answer equals the reference: compared as numbers if both are numbers, otherwise as text.

    Text comparison ignores case and collapses whitespace. Units may be missing or added (18 = 18 apples = $18.00), but
    if both sides have words the words must agree: 2 weeks is not 2 months. A number after a word of the reference
    (type 2 diabetes) is part of a name, not a value.
    """
    if candidate is None:
        return False
    candidate, reference = plain_answer(candidate), plain_answer(reference)
    if normalise(candidate) == normalise(reference):
        return True
    ours, theirs = find_number(candidate), find_number(reference)
    if ours is None or theirs is None or ours[1] != theirs[1]:
        return False
    (start, end), _ = theirs
    if not _words(reference):
        return True
    if not _words(candidate):
        return not _words(reference[:start])
    return _words(candidate) == _words(reference[:start] + " " + reference[end:])


def majority_key(answer: str | None) -> Fraction | str | None:
    """The key under which an answer votes: its number if it has one (18 and 18.0 vote together), else its plain text.

    A trace without an answer has the key None and votes for nothing.
    """
    if answer is None:
        return None
    answer = plain_answer(answer)
    number = parse_number(answer)
    return normalise(answer) if number is None else number


def find_equations(text: str) -> list[Equation]:
    """Every equation `a OP b = c` of plain decimals, in order; OP is one of + - * / x × ÷.

    Skips equations that are part of something longer, which a single operation cannot check: chains (2 + 3 + 4 = 9),
    fractions or expressions as results (1/2 = 3/6), and signed operands.
    """
    equations = []
    for match in _EQUATION.finditer(text):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if _continues(before):
            continue
        operator = match["operator"]
        equations.append(
            Equation(
                left_span=match.span("left"),
                operator_span=match.span("operator"),
                right_span=match.span("right"),
                result_span=match.span("result"),
                left=read_decimal(match["left"]),
                operator=_SYNONYMS.get(operator, operator),
                right=read_decimal(match["right"]),
                result=read_decimal(match["result"]),
            )
        )
    return equations


def _continues(before: str) -> bool:
    """Whether the text before an equation on its line makes its left operand part of something longer."""
    if _BULLET.fullmatch(before):
        return False
    before = before.rstrip()
    return bool(_CONTINUED.search(before)) and not _BOLD.search(before)


def normalise(text: str) -> str:
    """Normalises text for comparison: ignores case, extra whitespace and a final full stop."""
    return " ".join(text.split()).rstrip(".").casefold()


def _words(text: str) -> list[str]:
    return [word.casefold() for word in re.findall(r"[^\W\d_]+", text)]
