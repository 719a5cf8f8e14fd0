"""Whether an answer is right, and what it votes for, by kind of answer."""

from collections.abc import Hashable
from typing import assert_never

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.rewards.answers import answers_match, majority_key, normalise
from reasoning_irl.rewards.expressions import parse_expression, read_question, uses_at_most
from reasoning_irl.rewards.options import find_options, read_choice


def is_right(candidate: str | None, reference: str, kind: AnswerKind, question: str) -> bool:
    """Whether an answer is right. None, a trace without an answer, is wrong.

    The question is needed for its options, or for its numbers and target.
    """
    if candidate is None:
        return False
    match kind:
        case AnswerKind.text:
            return answers_match(candidate, reference)
        case AnswerKind.option:
            options = find_options(question)
            ours, theirs = read_choice(candidate, options), read_choice(reference, options)
            # Two options with the same text are the same answer.
            return ours is not None and theirs is not None and normalise(options[ours]) == normalise(options[theirs])
        case AnswerKind.expression:
            problem, expression = read_question(question), parse_expression(candidate)
            if problem is None or expression is None:
                return False
            numbers, target = problem
            return expression.value == target and uses_at_most(expression, numbers)
        case _:
            assert_never(kind)


def vote(candidate: str | None, kind: AnswerKind, question: str) -> Hashable | None:
    """The key that an answer votes for in a majority vote: equal answers have equal keys; None does not vote.

    An expression votes by its form, because its value would give the right answer away: it is the question's target.
    """
    if candidate is None:
        return None
    match kind:
        case AnswerKind.text:
            return majority_key(candidate)
        case AnswerKind.option:
            return read_choice(candidate, find_options(question)) or normalise(candidate)
        case AnswerKind.expression:
            expression = parse_expression(candidate)
            return normalise(candidate) if expression is None else expression.form
        case _:
            assert_never(kind)
