import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.config.schema import GENERATED, AnswerKind, DatasetConfig, DatasetName, IRLTrainConfig
from reasoning_irl.data.loading import DATASETS, GeneratedSet, load_test, load_train
from reasoning_irl.data.records import Record
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import MEDREASON, write_rows


@pytest.fixture
def dataset(tiny_config: Callable[..., IRLTrainConfig]) -> DatasetConfig:
    return replace(tiny_config().dataset, n_train=None, n_heldout=10)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    return str(write_rows(path, rows))


def gsm8k(n: int) -> dict[str, Any]:
    return {"question": f"{n} and 4?", "answer": f"{n} + 4 = {n + 4}\n#### {n + 4}"}


def kd(n: int) -> dict[str, Any]:
    return {"question": f"{n} and 4?", "answer": f"<think>{n} + 4 = {n + 4}</think> \\boxed{{{n + 4}}}"}


def own(n: int) -> dict[str, Any]:
    return {"question": f"{n} and 4?", "reasoning": f"{n} + 4 = {n + 4}", "answer": str(n + 4)}


def medreason(n: int) -> dict[str, Any]:
    return MEDREASON | {"question": f"Question {n}?"}


SETS = {
    DatasetName.gsm8k: (gsm8k, gsm8k),
    DatasetName.gsm8k_kd: (kd, gsm8k),
    DatasetName.jsonl: (own, own),
    DatasetName.medreason: (medreason, medreason),
    DatasetName.medical_kd: (medreason, medreason),
}


def test_every_data_set_has_a_row_and_generated_ones_need_no_file() -> None:
    """Trap: a data set that the checks of a config and its loading treat differently."""
    assert set(DATASETS) == set(DatasetName)
    assert {name for name, source in DATASETS.items() if isinstance(source, GeneratedSet)} == set(GENERATED)


def questions(records: list[Record]) -> set[str]:
    return {record.question for record in records}


@pytest.mark.parametrize("name", SETS)
def test_every_file_set_is_split_without_overlap(tmp_path: Path, dataset: DatasetConfig, name: str) -> None:
    train_row, test_row = SETS[DatasetName(name)]
    chosen = replace(
        dataset,
        name=DatasetName(name),
        path=write(tmp_path / "train.jsonl", [train_row(n) for n in range(60)]),
        test_path=write(tmp_path / "test.jsonl", [test_row(n) for n in range(100, 130)]),
    )
    data = load_train(chosen)
    validation, test = load_test(chosen, 10, None)
    assert [len(split) for split in (data.train, data.heldout, validation, test)] == [50, 10, 10, 20]
    everything = [*data.train, *data.heldout, *validation, *test]
    assert len(questions(everything)) == len({record.id for record in everything}) == 90
    is_choice = train_row is medreason
    assert {record.answer_kind for record in everything} == {AnswerKind.option if is_choice else AnswerKind.text}
    assert load_train(replace(chosen, seed=1)).train != data.train
    assert load_test(replace(chosen, seed=1), 10, None) == (validation, test)


def test_medreason_has_a_fixed_test_part(tmp_path: Path, dataset: DatasetConfig) -> None:
    """Trap: the hub has no test split, and a test part that depends on the run's seed leaks into training."""
    path = write(tmp_path / "train.jsonl", [medreason(n) for n in [*range(600), *range(300)]])  # some twice
    runs = [
        replace(dataset, name=DatasetName.medreason, path=path, seed=seed, n_heldout=n_heldout)
        for seed, n_heldout in ((0, 10), (1, 50))
    ]
    tests = [load_test(run, 10, None) for run in runs]
    assert tests[0] == tests[1]
    tested = questions([*tests[0][0], *tests[0][1]])
    assert 15 < len(tested) < 50
    for run in runs:
        data = load_train(run)
        assert not questions([*data.train, *data.heldout]) & tested
        assert len(questions([*data.train, *data.heldout]) | tested) == 600


def test_no_question_is_both_trained_on_and_held_out(tmp_path: Path, dataset: DatasetConfig) -> None:
    """Trap: a question with several experts, some of them trained on and others held out for the AUROC."""
    path = write(tmp_path / "train.jsonl", [kd(n) for n in range(40)] * 3)
    data = load_train(replace(dataset, name=DatasetName.gsm8k_kd, path=path))
    assert len(data.heldout) == 10
    assert not questions(data.train) & questions(data.heldout)
    assert len(questions(data.train) | questions(data.heldout)) == 40


def test_training_file_is_rejected_as_test_file(tmp_path: Path, dataset: DatasetConfig) -> None:
    path = write(tmp_path / "train.jsonl", [own(n) for n in range(40)])
    again = str(tmp_path / "." / "train.jsonl")
    with pytest.raises(DataError, match="is the training file"):
        load_test(replace(dataset, name=DatasetName.jsonl, path=path, test_path=again), 10, None)
    with pytest.raises(DataError, match="no test data"):
        load_test(replace(dataset, name=DatasetName.jsonl, path=str(tmp_path), test_path=str(tmp_path)), 10, None)
    with pytest.raises(DataError, match=r"needs dataset\.test_path"):
        load_test(replace(dataset, name=DatasetName.jsonl, path=path), 10, None)


def test_limits_fit_themselves_to_small_data(
    tmp_path: Path, dataset: DatasetConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: a first try with 20 records of one's own fails on defaults meant for thousands."""
    path = write(tmp_path / "train.jsonl", [own(n) for n in range(20)])
    test_path = write(tmp_path / "test.jsonl", [own(n) for n in range(100, 120)])
    chosen = replace(dataset, name=DatasetName.jsonl, path=path, test_path=test_path, n_heldout=100)
    with caplog.at_level(logging.INFO):
        data = load_train(chosen)
        validation, test = load_test(chosen, 300, None)
    assert (len(data.train), len(data.heldout), len(validation), len(test)) == (14, 6, 6, 14)
    assert not questions(validation) & questions(test)
    assert [record.getMessage() for record in caplog.records] == [
        "dataset.n_heldout=100 is more than half of the 20 experts: 6 are held out",
        "20 test records are too few for eval.n_validation=300: 6 are for validation",
    ]
    # What fits is kept as it is.
    assert [len(part) for part in load_test(chosen, 8, 12)] == [8, 12]
    assert len(load_train(replace(chosen, n_heldout=10)).heldout) == 10


def test_too_few_records_are_an_error(tmp_path: Path, dataset: DatasetConfig) -> None:
    path = write(tmp_path / "train.jsonl", [own(n) for n in range(2)])
    test_path = write(tmp_path / "test.jsonl", [own(n) for n in range(100, 103)])
    chosen = replace(dataset, name=DatasetName.jsonl, path=path, test_path=test_path)
    with pytest.raises(DataError, match="2 experts leave none to learn from, 2 held out"):
        load_train(chosen)
    with pytest.raises(DataError, match="has 3 records: give at least 4"):
        load_test(chosen, 8, 3)


@pytest.mark.parametrize("name", [DatasetName.arithmetic, DatasetName.countdown, DatasetName.gsm8k])
def test_only_training_experts_get_planted_errors(tmp_path: Path, dataset: DatasetConfig, name: DatasetName) -> None:
    """Trap: a planted error among the held-out experts or the test problems."""
    path = write(tmp_path / "train.jsonl", [gsm8k(n) for n in range(60)]) if name == DatasetName.gsm8k else None
    clean = replace(dataset, name=name, path=path, n_train=40)
    noisy = replace(clean, expert_error_rate=0.25)
    a, b = load_train(clean), load_train(noisy)
    assert a.heldout == b.heldout
    assert sum(x.target != y.target for x, y in zip(a.train, b.train, strict=True)) == 10
    if name != DatasetName.gsm8k:
        assert load_test(clean, 5, 20) == load_test(noisy, 5, 20)
