"""From `dataset.*` to records, split so that nothing that is learnt from is ever tested on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from reasoning_irl.config.schema import DatasetConfig, DatasetName
from reasoning_irl.data.arithmetic import AnnotatorErrors, Problem, annotate, expert_record, generate_problems
from reasoning_irl.data.gsm8k import load_gsm8k
from reasoning_irl.data.jsonl import load_jsonl
from reasoning_irl.data.records import Record
from reasoning_irl.utils.errors import DataError

# The embedded test and validation problems come first in the stream, so that they do not move with the sizes below.
N_EMBEDDED_TEST = 2000


@dataclass(frozen=True)
class TrainData:
    """Experts to learn from, and experts kept apart to see how the discriminator does on new ones."""

    train: list[Record]
    heldout: list[Record]


def load_train(dataset: DatasetConfig) -> TrainData:
    """Raises DataError where a file or a record is unusable, or where there are too few experts."""
    if dataset.name == DatasetName.arithmetic:
        if dataset.n_train is None:
            raise DataError("dataset.name=arithmetic has no end: give dataset.n_train")
        total = dataset.n_train + dataset.n_heldout
        records = _arithmetic(dataset, N_EMBEDDED_TEST, total, "train")
    else:
        assert dataset.path is not None  # config/validate.py
        records = _load_file(dataset, dataset.path)
        random.Random(dataset.seed).shuffle(records)
    n_train = len(records) - dataset.n_heldout
    if n_train < 1:
        raise DataError(
            f"{len(records)} experts leave none to learn from after dataset.n_heldout={dataset.n_heldout}: "
            "lower n_heldout or give more experts"
        )
    return TrainData(records[dataset.n_heldout :][: dataset.n_train], records[: dataset.n_heldout])


def load_annotated(dataset: DatasetConfig, n: int) -> list[Record]:
    """n problems as the error-prone annotator solved them; none of them is an expert's or a test problem."""
    assert dataset.n_train is not None
    start = N_EMBEDDED_TEST + dataset.n_train + dataset.n_heldout
    rng = random.Random(f"annotator {dataset.seed}")
    errors = AnnotatorErrors(dataset.annotator.misread, dataset.annotator.distracted, dataset.annotator.slip)
    problems = _problems(dataset, start, n)
    return [
        Record(r.id, r.prompt, annotate(p, rng, errors, dataset.max_value), r.answer)
        for p, r in zip(problems, _as_records(dataset, problems, "annotated"), strict=True)
    ]


def load_test(dataset: DatasetConfig, n_validation: int, n_test: int | None) -> tuple[list[Record], list[Record]]:
    """(validation, test) records, without overlap, from data that is not trained on."""
    if dataset.name == DatasetName.arithmetic:
        wanted = n_validation + (n_test or N_EMBEDDED_TEST - n_validation)
        if wanted > N_EMBEDDED_TEST:
            raise DataError(f"the embedded data has {N_EMBEDDED_TEST} test problems, fewer than the {wanted} asked for")
        records = _arithmetic(dataset, 0, wanted, "test")
    else:
        if not dataset.test_path:
            raise DataError("evaluation needs dataset.test_path=FILE (jsonl), apart from the training file")
        records = _load_file(dataset, dataset.test_path)
        random.Random(0).shuffle(records)  # the same test set for every run
    if len(records) < n_validation + (n_test or 1):
        raise DataError(
            f"{dataset.test_path} has {len(records)} records, too few for eval.n_validation={n_validation} and "
            f"eval.n_problems={n_test}: lower them"
        )
    validation, test = records[:n_validation], records[n_validation:]
    return validation, test[:n_test]


def _load_file(dataset: DatasetConfig, path: str) -> list[Record]:
    load = load_gsm8k if dataset.name == DatasetName.gsm8k else load_jsonl
    return load(Path(path), dataset.system_prompt)


def _arithmetic(dataset: DatasetConfig, start: int, n: int, split: str) -> list[Record]:
    return _as_records(dataset, _problems(dataset, start, n), split)


def _problems(dataset: DatasetConfig, start: int, n: int) -> list[Problem]:
    stream = generate_problems(dataset.seed, dataset.max_value, dataset.max_steps, dataset.distractor_rate)
    return list(islice(stream, start, start + n))


def _as_records(dataset: DatasetConfig, problems: Sequence[Problem], split: str) -> list[Record]:
    return [
        expert_record(problem, f"arithmetic-{split}-{i}", dataset.system_prompt) for i, problem in enumerate(problems)
    ]
