"""From `dataset.*` to records, split so that nothing that is learnt from is ever tested on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from reasoning_irl.config.schema import DatasetConfig, DatasetName
from reasoning_irl.data import arithmetic, countdown
from reasoning_irl.data.arithmetic import AnnotatorErrors, Problem, annotate
from reasoning_irl.data.expert_errors import plant_errors
from reasoning_irl.data.gsm8k import gsm8k_kd_record, gsm8k_record
from reasoning_irl.data.jsonl import own_record
from reasoning_irl.data.medreason import is_test_question, medreason_record
from reasoning_irl.data.records import Record
from reasoning_irl.data.sources import HubSet, Parser, read_rows, to_records
from reasoning_irl.utils.errors import DataError

# The test and validation problems of generated data come first in the stream, so that they do not move with the
# sizes below.
N_GENERATED_TEST = 2000
GENERATED = (DatasetName.arithmetic, DatasetName.countdown)


@dataclass(frozen=True)
class Source:
    """How rows become records, and where they are on the hub, if they are."""

    parse: Parser
    hub: HubSet | None = None


GSM8K = Source(gsm8k_record, HubSet("openai/gsm8k", "main"))
MEDREASON = Source(medreason_record, HubSet("UCSC-VLAA/MedReason"))
OWN = Source(own_record)
TRAIN_SOURCES = {
    DatasetName.gsm8k: GSM8K,
    DatasetName.gsm8k_kd: Source(gsm8k_kd_record, HubSet("onnookk/format_vs_content_reasoning_clean_gsm8k")),
    DatasetName.medreason: MEDREASON,
    DatasetName.medical_kd: MEDREASON,
    DatasetName.jsonl: OWN,
}
TEST_SOURCES = TRAIN_SOURCES | {DatasetName.gsm8k_kd: GSM8K}


@dataclass(frozen=True)
class TrainData:
    """Experts to learn from, and experts kept apart to see how the discriminator does on new ones."""

    train: list[Record]
    heldout: list[Record]


def load_train(dataset: DatasetConfig) -> TrainData:
    """The experts; a share of those to learn from errs where `expert_error_rate` says so, the others never do.

    Raises DataError where a file or a record is unusable, or where there are too few experts.
    """
    if dataset.name in GENERATED:
        if dataset.n_train is None:
            raise DataError(f"dataset.name={dataset.name} has no end: give dataset.n_train")
        total = dataset.n_train + dataset.n_heldout
        records = _generated(dataset, N_GENERATED_TEST, total, "train")
    else:
        records = _read_train(dataset)
        random.Random(dataset.seed).shuffle(records)
    heldout = records[: dataset.n_heldout]
    asked = {record.question for record in heldout}  # a question may have several experts
    train = [record for record in records[dataset.n_heldout :] if record.question not in asked][: dataset.n_train]
    if not train:
        raise DataError(
            f"{len(records)} experts leave none to learn from after dataset.n_heldout={dataset.n_heldout}: "
            "lower n_heldout or give more experts"
        )
    max_value = dataset.max_value if dataset.name == DatasetName.arithmetic else None
    return TrainData(plant_errors(train, dataset.expert_error_rate, dataset.seed, max_value), heldout)


def load_annotated(dataset: DatasetConfig, n: int) -> list[Record]:
    """n problems as the error-prone annotator solved them; none of them is an expert's or a test problem."""
    assert dataset.n_train is not None
    start = N_GENERATED_TEST + dataset.n_train + dataset.n_heldout
    rng = random.Random(f"annotator {dataset.seed}")
    errors = AnnotatorErrors(dataset.annotator.misread, dataset.annotator.distracted, dataset.annotator.slip)
    problems = _arithmetic_problems(dataset, start, n)
    return [
        Record(r.id, r.prompt, annotate(p, rng, errors, dataset.max_value), r.answer)
        for p, r in zip(problems, _arithmetic_records(dataset, problems, "annotated"), strict=True)
    ]


def load_test(dataset: DatasetConfig, n_validation: int, n_test: int | None) -> tuple[list[Record], list[Record]]:
    """(validation, test) records, without overlap, from data that is not trained on."""
    if dataset.name in GENERATED:
        wanted = n_validation + (n_test or N_GENERATED_TEST - n_validation)
        if wanted > N_GENERATED_TEST:
            raise DataError(
                f"the generated data has {N_GENERATED_TEST} test problems, fewer than the {wanted} asked for"
            )
        records = _generated(dataset, 0, wanted, "test")
    else:
        records = _read_test(dataset)
        random.Random(0).shuffle(records)  # the same test set for every run
    if len(records) < n_validation + (n_test or 1):
        raise DataError(
            f"the test data of dataset.name={dataset.name} has {len(records)} records, too few for "
            f"eval.n_validation={n_validation} and eval.n_problems={n_test}: lower them"
        )
    return records[:n_validation], records[n_validation:][:n_test]


def _read_train(dataset: DatasetConfig) -> list[Record]:
    source = TRAIN_SOURCES[dataset.name]
    rows = read_rows(dataset.path, source.hub, "train", "dataset.path")
    if _tests_on_held_out_rows(dataset):
        rows = [row for row in rows if not is_test_question(row)]
    return to_records(rows, source.parse, dataset.system_prompt)


def _read_test(dataset: DatasetConfig) -> list[Record]:
    source = TEST_SOURCES[dataset.name]
    if _tests_on_held_out_rows(dataset):
        rows = read_rows(dataset.path, source.hub, "train", "dataset.path")
        rows = [row for row in rows if is_test_question(row)]
        return to_records(rows, source.parse, dataset.system_prompt)
    if source.hub is None and not dataset.test_path:
        raise DataError("evaluation needs dataset.test_path=FILE, apart from the training file")
    if _is_training_file(dataset):
        raise DataError(f"dataset.test_path={dataset.test_path} is the training file: give another one")
    rows = read_rows(dataset.test_path, source.hub, "test", "dataset.test_path")
    return to_records(rows, source.parse, dataset.system_prompt)


def _tests_on_held_out_rows(dataset: DatasetConfig) -> bool:
    """MedReason has no test split on the hub; a fixed part of its rows is kept for testing."""
    return TRAIN_SOURCES[dataset.name] is MEDREASON and not dataset.test_path


def _is_training_file(dataset: DatasetConfig) -> bool:
    if not dataset.path or not dataset.test_path or not Path(dataset.path).is_file():
        return False
    return Path(dataset.path).resolve() == Path(dataset.test_path).resolve()


def _generated(dataset: DatasetConfig, start: int, n: int, split: str) -> list[Record]:
    if dataset.name == DatasetName.arithmetic:
        return _arithmetic_records(dataset, _arithmetic_problems(dataset, start, n), split)
    settings = dataset.countdown
    stream = countdown.generate_problems(dataset.seed, settings.n_numbers, settings.max_number)
    problems = islice(stream, start, start + n)
    return [
        countdown.expert_record(problem, f"countdown-{split}-{i}", dataset.system_prompt)
        for i, problem in enumerate(problems)
    ]


def _arithmetic_problems(dataset: DatasetConfig, start: int, n: int) -> list[Problem]:
    stream = arithmetic.generate_problems(dataset.seed, dataset.max_value, dataset.max_steps, dataset.distractor_rate)
    return list(islice(stream, start, start + n))


def _arithmetic_records(dataset: DatasetConfig, problems: Sequence[Problem], split: str) -> list[Record]:
    return [
        arithmetic.expert_record(problem, f"arithmetic-{split}-{i}", dataset.system_prompt)
        for i, problem in enumerate(problems)
    ]
