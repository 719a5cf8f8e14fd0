"""The names of the perturbations, apart from their code so that the config schema stays light."""

from enum import StrEnum


class PerturbationKind(StrEnum):
    operator_flip = "operator_flip"
    nearby_answer = "nearby_answer"
    answer_from_trace = "answer_from_trace"
    number_corruption = "number_corruption"
    wrong_quantity = "wrong_quantity"
