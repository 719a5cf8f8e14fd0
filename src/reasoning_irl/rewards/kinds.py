"""The names of the perturbations and of the kinds of answers, apart from their code: the config schema stays light."""

from enum import StrEnum


class PerturbationKind(StrEnum):
    operator_flip = "operator_flip"
    nearby_answer = "nearby_answer"
    answer_from_trace = "answer_from_trace"
    number_corruption = "number_corruption"
    wrong_quantity = "wrong_quantity"
    other_option = "other_option"


class AnswerKind(StrEnum):
    """What makes an answer right; see rewards/checking.py."""

    text = "text"  # it states the reference's number, or its words
    option = "option"  # it names the same option of those that the question shows
    expression = "expression"  # it makes the question's target from the question's numbers
