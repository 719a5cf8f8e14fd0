"""Plants errors in a share of the demonstrations, to measure what learning from imperfect experts costs."""

import random
from collections.abc import Sequence
from dataclasses import replace

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger

# Fixed, so that a new perturbation does not change the experts of existing experiments.
KINDS = (
    PerturbationKind.operator_flip,
    PerturbationKind.nearby_answer,
    PerturbationKind.answer_from_trace,
    PerturbationKind.number_corruption,
    PerturbationKind.wrong_quantity,
    PerturbationKind.other_option,
)


def plant_errors(records: Sequence[Record], rate: float, seed: int, max_value: int | None = None) -> list[Record]:
    """Returns the records with round(rate * N) of their traces perturbed; the reference answers stay right.

    The choice is seeded, and the perturbed records of a lower rate are a subset of those of a higher one. Traces that
    cannot be perturbed are replaced by others; if there are too few others, a warning says how many were perturbed.
    Raises DataError if none can be. `max_value` as in `perturb`.
    """
    wanted = round(rate * len(records))
    order = random.Random(f"expert errors {seed}").sample(range(len(records)), len(records))
    erring = list(records)
    planted = 0
    for at in order:
        if planted == wanted:
            break
        trace = _perturbed(records[at], seed, max_value)
        if trace is not None:
            erring[at] = replace(records[at], target=trace)
            planted += 1
    if wanted and not planted:
        raise DataError(
            f"dataset.expert_error_rate={rate}: no expert has a step or answer that can be perturbed; set it to 0"
        )
    if planted < wanted:
        logger.warning(
            "dataset.expert_error_rate=%s asks for errors in %d of %d experts, but only %d can be perturbed",
            *(rate, wanted, len(records), planted),
        )
    return erring


def _perturbed(record: Record, seed: int, max_value: int | None) -> str | None:
    rng = random.Random(f"expert error {seed} {record.id}")
    found = sample_perturbations(record.target, record.question, KINDS, 1, rng, max_value=max_value)
    return found[0].text if found else None
