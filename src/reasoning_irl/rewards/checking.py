"""Whether an answer is right, and what it votes for, by the kind of answer that a record asks for."""

from collections.abc import Hashable

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.rewards.answers import answers_match, majority_key, normalise
from reasoning_irl.rewards.expressions import parse_expression, read_question, uses_at_most
from reasoning_irl.rewards.options import find_options, read_choice


def is_right(candidate: str | None, reference: str, kind: AnswerKind, question: str) -> bool:
    """Whether an answer is right; None, for a trace without one, is not.

    The question holds what the reference leaves open: the options, or the numbers and the target.
    """
    if candidate is None:
        return False
    if kind == AnswerKind.expression:
        problem, expression = read_question(question), parse_expression(candidate)
        if problem is None or expression is None:
            return False
        numbers, target = problem
        return expression.value == target and uses_at_most(expression, numbers)
    if kind == AnswerKind.option:
        options = find_options(question)
        ours, theirs = read_choice(candidate, options), read_choice(reference, options)
        # Two options with one text are one answer.
        return ours is not None and theirs is not None and normalise(options[ours]) == normalise(options[theirs])
    return answers_match(candidate, reference)


def vote(candidate: str | None, kind: AnswerKind, question: str) -> Hashable | None:
    """What an answer votes for in a majority: answers that say the same have one key; None votes for nothing.

    Of expressions it is the form and not the value, which would tell the right ones by the question's target.
    """
    if candidate is None:
        return None
    if kind == AnswerKind.option:
        return read_choice(candidate, find_options(question)) or normalise(candidate)
    if kind == AnswerKind.expression:
        expression = parse_expression(candidate)
        return normalise(candidate) if expression is None else expression.form
    return majority_key(candidate)
