"""Experts that err: a share of the demonstrations with one planted error, to see what learning from them costs."""

import random
from collections.abc import Sequence
from dataclasses import replace

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.utils.errors import DataError
from reasoning_irl.utils.log import logger


def plant_errors(records: Sequence[Record], rate: float, seed: int, max_value: int | None = None) -> list[Record]:
    """The records, round(rate * N) of them with a perturbed trace; the reference answers stay right.

    Which ones is seeded, and those of a lower rate are among those of a higher one. Where a trace offers nothing to
    break another one is taken; a warning says how many there are where all are not enough. Raises DataError where none
    can be broken. `max_value` as in `perturb`.
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
            f"dataset.expert_error_rate={rate}: no expert has a step or answer that can be broken; set it to 0"
        )
    if planted < wanted:
        logger.warning(
            "dataset.expert_error_rate=%s asks for %d erring experts of %d, but only %d can be broken",
            *(rate, wanted, len(records), planted),
        )
    return erring


def _perturbed(record: Record, seed: int, max_value: int | None) -> str | None:
    rng = random.Random(f"expert error {seed} {record.id}")
    found = sample_perturbations(record.target, record.question, list(PerturbationKind), 1, rng, max_value=max_value)
    return found[0].text if found else None
