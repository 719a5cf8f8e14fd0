"""Planted errors: copies of an expert trace with one error, and the position of that error.

Every edit changes what the trace claims. Edits that leave the claim true, such as 2 + 2 = 4 to 2 * 2 = 4, are never
made, and digits without meaning, such as list numbers, are never changed.

To add a perturbation, add its name to `config.schema.PerturbationKind`, and its function and a row of PLACES here.
"""

import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, zip_longest

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.rewards.answers import (
    OPERATORS,
    Equation,
    answers_match,
    calculate,
    find_equations,
    find_magnitudes,
    find_number,
    normalise,
    read_decimal,
)
from reasoning_irl.rewards.options import find_options, read_choice, replace_choice
from reasoning_irl.text.trace import Span, answer_span, reasoning_span, step_spans

_LIST_NUMBER = re.compile(r"^[ \t]*(?:step[ \t]*)?[0-9]+[.):](?![0-9])", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Perturbation:
    """A perturbed trace: `span` is the wrong part of `text`, and `step` the 1-based step that contains it."""

    text: str
    span: Span
    kind: PerturbationKind
    step: int


@dataclass(frozen=True)
class Edit:
    """Replaces the characters of `span` by `text`."""

    span: Span  # in the original trace
    text: str


N_KEPT = 8192  # places of (trace, kind), 9 KB each of traces of a dozen equations: those of two thousand experts

# Edits grouped by place (an equation, the answer). A place is drawn first, so that places with many possible edits are
# not drawn more often than others.
Places = list[list[Edit]]


def perturb(
    trace: str,
    question: str,
    kind: PerturbationKind,
    rng: random.Random,
    *,
    max_value: int | None = None,
) -> Perturbation | None:
    """A random perturbation of one kind, or None if there is none that changes the trace's meaning.

    The trace is assumed to be right: its own answer is the reference. `max_value` restricts new numbers to integers in
    0..max_value and introduces no division that the trace does not use, for vocabularies with one token per number.
    """
    return next(_perturbations(trace, question, kind, rng, max_value), None)


def sample_perturbations(
    trace: str,
    question: str,
    kinds: Sequence[PerturbationKind],
    n: int,
    rng: random.Random,
    *,
    max_value: int | None = None,
) -> list[Perturbation]:
    """Up to `n` perturbations with different texts, taken from the kinds in turn, in random order.

    Returns fewer if the trace has no more. `max_value` as in `perturb`.
    """
    order = list(dict.fromkeys(kinds))
    rng.shuffle(order)
    streams = [_perturbations(trace, question, kind, rng, max_value) for kind in order]
    found: dict[str, Perturbation] = {}
    while streams and len(found) < n:
        for stream in list(streams):
            if len(found) >= n:
                break
            fresh = next(stream, None)
            if fresh is None:
                streams.remove(stream)
            else:
                found.setdefault(fresh.text, fresh)
    return list(found.values())


def _perturbations(
    trace: str, question: str, kind: PerturbationKind, rng: random.Random, max_value: int | None
) -> Iterator[Perturbation]:
    """Yields every perturbation of a kind once, in random order."""
    places = [list(edits) for edits in _places(trace, question, kind, max_value)]
    rng.shuffle(places)
    for edits in places:
        rng.shuffle(edits)
    for edit in chain.from_iterable(zip_longest(*places)):
        if edit is not None:
            yield _apply(trace, edit, kind)


@functools.lru_cache(N_KEPT)
def _places(trace: str, question: str, kind: PerturbationKind, max_value: int | None) -> Places:
    """The places of a kind, which the caller must not change: the same experts are perturbed epoch after epoch."""
    return PLACES[kind](trace, question, max_value)


def _apply(trace: str, edit: Edit, kind: PerturbationKind) -> Perturbation:
    start, end = edit.span
    text = trace[:start] + edit.text + trace[end:]
    span = start, start + len(edit.text)
    steps = enumerate(step_spans(text), start=1)
    step = next(number for number, (first, last) in steps if first <= span[0] and span[1] <= last)
    return Perturbation(text, span, kind, step)


def _operator_flips(trace: str, _question: str, max_value: int | None) -> Places:
    equations = _correct_equations(trace)
    signs = {operator: operator for operator in OPERATORS}
    for equation in reversed(equations):  # use the symbol (x, ×) with which the trace first writes an operator
        signs[equation.operator] = trace[slice(*equation.operator_span)]
    used = {equation.operator for equation in equations}
    allowed = [op for op in OPERATORS if max_value is None or op != "/" or op in used]
    return [
        [
            Edit(equation.operator_span, signs[operator])
            for operator in allowed
            if not replace(equation, operator=operator).holds
        ]
        for equation in equations
    ]


def _number_corruptions(trace: str, _question: str, max_value: int | None) -> Places:
    places = []
    for equation in _correct_equations(trace):
        numbers = (
            (equation.left_span, equation.left),
            (equation.right_span, equation.right),
            (equation.result_span, equation.result),
        )
        places.append(
            [
                Edit(span, _write(written, new, places=_decimal_places(written)))
                for span, value in numbers
                for written in (trace[slice(*span)],)
                for new in _nearby(value, max_value)
                if not _with(equation, span, new).holds
            ]
        )
    return places


def _with(equation: Equation, span: Span, value: Fraction) -> Equation:
    """The equation with `value` as the number at `span`."""
    if span == equation.left_span:
        return replace(equation, left=value)
    if span == equation.right_span:
        return replace(equation, right=value)
    return replace(equation, result=value)


def _wrong_quantities(trace: str, question: str, max_value: int | None) -> Places:
    quantities = list(dict.fromkeys(value for _, value in find_magnitudes(question)))
    places = []
    for equation in _correct_equations(trace):
        edits = []
        for span, old in ((equation.left_span, equation.left), (equation.right_span, equation.right)):
            others = [value for value in quantities if value != old] if old in quantities else []
            for value in others:
                changed = _with(equation, span, value)
                result = calculate(changed.left, changed.operator, changed.right)
                if (
                    result is not None
                    and result.denominator == 1
                    and result >= 0
                    and result != equation.result
                    and _in_range(value, max_value)
                    and _in_range(result, max_value)
                ):
                    edits.append(_rewrite(trace, equation, span, value, result))
        places.append(edits)
    return places


def _rewrite(trace: str, equation: Equation, operand: Span, value: Fraction, result: Fraction) -> Edit:
    """Rewrites the equation with another operand and result, keeping all other characters."""
    start, end = equation.span
    text = (
        trace[start : operand[0]]
        + _write(trace[slice(*operand)], value)
        + trace[operand[1] : equation.result_span[0]]
        + _write(trace[slice(*equation.result_span)], result)
    )
    return Edit((start, end), text)


def _nearby_answers(trace: str, _question: str, max_value: int | None) -> Places:
    number = _answer_number(trace)
    if number is None:
        return []
    span, _ = number
    # In a fraction, change the numerator.
    written, slash, rest = trace[slice(*span)].partition("/")
    texts = [
        _write(written, value, places=_decimal_places(written)) + slash + rest
        for value in _nearby(read_decimal(written), max_value)
    ]
    return [_wrong_answers(trace, span, texts)]


def _answers_from_trace(trace: str, _question: str, max_value: int | None) -> Places:
    number = _answer_number(trace)
    if number is None:
        return []
    span, _ = number
    reasoning = _LIST_NUMBER.sub("", trace[slice(*reasoning_span(trace))])
    values = dict.fromkeys(value for _, value in find_magnitudes(reasoning))
    texts = [_write(trace[slice(*span)], value) for value in values if _in_range(value, max_value)]
    return [_wrong_answers(trace, span, texts)]


def _answer_number(trace: str) -> tuple[Span, Fraction] | None:
    """The span in the trace, and the value, of the only number in the answer."""
    span = answer_span(trace)
    number = find_number(trace[slice(*span)]) if span else None
    if span is None or number is None:
        return None
    (start, end), value = number
    return (span[0] + start, span[0] + end), value


def _wrong_answers(trace: str, span: Span, texts: list[str]) -> list[Edit]:
    """Edits of the answer's number at `span`, without those that still match the answer."""
    outer = answer_span(trace)
    assert outer is not None
    before, after = trace[outer[0] : span[0]], trace[span[1] : outer[1]]
    answer = trace[slice(*outer)]
    return [Edit(span, text) for text in texts if not answers_match(before + text + after, answer)]


def _other_options(trace: str, question: str, _max_value: int | None) -> Places:
    """Other options in the answer's own style: a letter, a text, or both."""
    span, options = answer_span(trace), find_options(question)
    answer = trace[slice(*span)] if span else None
    chosen = read_choice(answer, options)
    if span is None or answer is None or chosen is None:
        return []
    texts = [
        replace_choice(answer, options, letter)
        for letter, text in options.items()
        if normalise(text) != normalise(options[chosen])  # options with the same text are the same answer
    ]
    return [[Edit(span, text) for text in texts if read_choice(text, options) not in (chosen, None)]]


def _correct_equations(trace: str) -> list[Equation]:
    """The correct equations of the reasoning, with spans in the whole trace."""
    start, end = reasoning_span(trace)
    # Spaces in place of the text before the reasoning keep the offsets right.
    return [equation for equation in find_equations(" " * start + trace[start:end]) if equation.holds]


def _nearby(value: Fraction, max_value: int | None) -> list[Fraction]:
    """Values a few units away from `value`; a unit is 1, or the last decimal place of a non-integer."""
    unit = Fraction(1, 10 ** _places_of(value))
    shifts = (1, 2, 3, 10) if abs(value) >= 20 * unit else (1, 2, 3)
    values = [value + sign * shift * unit for shift in shifts for sign in (-1, 1)]
    return [new for new in values if (new >= 0 or value < 0) and _in_range(new, max_value)]


def _in_range(value: Fraction, max_value: int | None) -> bool:
    return max_value is None or (value.denominator == 1 and 0 <= value <= max_value)


def _places_of(value: Fraction) -> int:
    """The number of decimal places of a terminating decimal."""
    places = 0
    while 10**places % value.denominator:
        if places > value.denominator.bit_length():  # 2**k and 5**k need k decimals, at most their bit length
            raise ValueError(f"{value} has no exact decimal form")
        places += 1
    return places


def _decimal_places(written: str) -> int:
    return len(written.rstrip().partition(".")[2])


def _write(old: str, value: Fraction, places: int = 0) -> str:
    """Writes `value` in the style of the number `old` (currency, thousands), with at least `places` decimals."""
    places = max(places, _places_of(value))
    whole, decimals = divmod(abs(int(value * 10**places)), 10**places)
    currency = re.search("[$€£]", old)
    minus = "−" if "−" in old else "-"
    return "".join(
        (
            minus if value < 0 else "",
            currency.group() if currency else "",
            f"{whole:,}" if "," in old else str(whole),
            f".{decimals:0{places}d}" if places else "",
        )
    )


# (trace, question, max_value) -> every edit that makes the trace wrong, by place. `max_value`: see `perturb`.
PLACES: dict[PerturbationKind, Callable[[str, str, int | None], Places]] = {
    PerturbationKind.operator_flip: _operator_flips,
    PerturbationKind.nearby_answer: _nearby_answers,
    PerturbationKind.answer_from_trace: _answers_from_trace,
    PerturbationKind.number_corruption: _number_corruptions,
    PerturbationKind.wrong_quantity: _wrong_quantities,
    PerturbationKind.other_option: _other_options,
}
