"""Reading files, folders and hub sets; a local folder goes through the same library code as a hub set."""

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from reasoning_irl.data.gsm8k import gsm8k_kd_record, gsm8k_record
from reasoning_irl.data.jsonl import own_record
from reasoning_irl.data.medreason import medreason_record
from reasoning_irl.data.sources import HubSet, read_rows, to_records
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import MEDREASON, write_rows

OWN = {"question": "3 + 4?", "reasoning": "3 + 4 = 7", "answer": "7"}
GSM8K = {"question": "3 + 4?", "answer": "So 3 + 4 = <<3+4=7>>7.\n#### 7"}
KD = {"question": "3 + 4?", "answer": "<think>\n3 + 4 = 7\n</think>\n\nIt is \\boxed{7}."}


def write(path: Path, rows: list[Any]) -> Path:
    """Writes a file in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_rows(path, rows)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_every_file_format_gives_the_same_records(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"mine.{suffix}", [OWN, OWN | {"question": "4 + 3?"}])
    records = to_records(read_rows(str(path), None, "train", "dataset.path"), own_record, "")
    assert [(record.id, record.question) for record in records] == [("mine-1", "3 + 4?"), ("mine-2", "4 + 3?")]


def test_ids_that_repeat_are_named(tmp_path: Path) -> None:
    """Trap: evaluations group samples by id, and would merge two problems."""
    path = write(tmp_path / "mine.jsonl", [OWN | {"id": "a"}, OWN | {"id": "b"}, OWN | {"id": "a"}])
    with pytest.raises(DataError, match=r"mine\.jsonl:3: id a is also that of .*mine\.jsonl:1"):
        to_records(read_rows(str(path), None, "train", "dataset.path"), own_record, "")


def test_json_file_may_contain_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(OWN) + "\n\n" + json.dumps(OWN) + "\n")
    assert [row.where for row in read_rows(str(path), None, "train", "dataset.path")] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_folder_is_read_by_split(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train.{suffix}", [GSM8K] * 3)
    write(tmp_path / f"test.{suffix}", [GSM8K | {"question": "5 + 2?"}])
    hub = HubSet("openai/gsm8k", "main")  # the folder has no such config and needs none
    assert len(read_rows(str(tmp_path), hub, "train", "dataset.path")) == 3
    (row,) = read_rows(str(tmp_path), hub, "test", "dataset.test_path")
    assert gsm8k_record(row, "").question == "5 + 2?"
    assert (row.where, row.name) == (f"{tmp_path} test row 1", "test-1")


def hub_copy(folder: Path) -> Path:
    """A set as it is on the hub, with the configs that its card declares."""
    for config, question in (("main", "3 + 4?"), ("socratic", "What is asked?")):
        write(folder / config / "train-00000-of-00001.parquet", [GSM8K | {"question": question}])
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*"}]}
        for name in ("main", "socratic")
    ]
    (folder / "README.md").write_text("---\n" + json.dumps({"configs": configs}) + "\n---\n# GSM8K\n")
    return folder


def test_local_copy_of_a_hub_set_is_read_with_its_config(tmp_path: Path) -> None:
    (row,) = read_rows(str(hub_copy(tmp_path)), HubSet("openai/gsm8k", "main"), "train", "dataset.path")
    assert row.text("question") == "3 + 4?"


def test_hub_set_is_read_by_name_config_and_split(tmp_path: Path) -> None:
    """The library accepts a folder in place of a hub name, so this is the code path of a hub set."""
    (row,) = read_rows(None, HubSet(str(hub_copy(tmp_path)), "socratic"), "train", "dataset.path")
    assert row.text("question") == "What is asked?"
    assert row.where.endswith("train row 1")


@pytest.mark.parametrize(
    ("values", "parse", "answer"),
    [
        (GSM8K, gsm8k_record, "7"),
        (KD, gsm8k_kd_record, "7"),
        (MEDREASON, medreason_record, "B. A clot"),
        (MEDREASON | {"options": {"A": "A cold", "B": "A clot"}}, medreason_record, "B. A clot"),
    ],
)
def test_columns_of_every_hub_set_survive_the_library(tmp_path: Path, values: Any, parse: Any, answer: str) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", [values] * 2)
    records = to_records(read_rows(None, HubSet(str(tmp_path)), "train", "dataset.path"), parse, "")
    assert [record.answer for record in records] == [answer] * 2


def test_without_the_hub_the_error_says_to_use_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for key in ("dataset.path", "dataset.test_path"):
        with pytest.raises(DataError, match=f"the hub set openai/gsm8k cannot be read .*set {key}=FILE") as caught:
            read_rows(None, HubSet("openai/gsm8k", "main"), "train", key)
        assert "\n" not in str(caught.value)


def test_missing_or_empty_source_is_named(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            read_rows(str(path), None, "train", "dataset.path")
        assert "\n" not in str(caught.value)
        assert "dataset.path" in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "no file or folder" in message(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    assert "cannot be read as a data set" in message(tmp_path / "empty")
    assert "contains no records" in message(write(tmp_path / "empty.jsonl", []))
    assert "contains no records" in message(write(tmp_path / "empty.json", []))
    assert "has test data, but no train data" in message(write(tmp_path / "half" / "test.jsonl", [OWN]).parent)


def test_damaged_file_is_named_with_the_place(tmp_path: Path) -> None:
    parquet, jsonl = tmp_path / "bad.parquet", tmp_path / "bad.jsonl"
    parquet.write_text("not parquet")
    jsonl.write_text(json.dumps(OWN) + "\n{oops\n")
    broken = write(tmp_path / "bad.json", [OWN, 7])
    for path, place in (
        (parquet, f"{parquet} is not a readable parquet file"),
        (jsonl, f"{jsonl}:2: "),
        (broken, f"{broken}: record 2"),
    ):
        with pytest.raises(DataError) as caught:
            read_rows(str(path), None, "train", "dataset.path")
        assert str(caught.value).startswith(place)
        assert "\n" not in str(caught.value)


def test_bad_record_is_named_by_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.parquet", [OWN, OWN | {"answer": None}])
    with pytest.raises(DataError, match=r"mine\.parquet: row 2: the record has no 'answer'"):
        to_records(read_rows(str(path), None, "train", "dataset.path"), own_record, "")


def test_rows_without_an_expert_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "train.jsonl", [KD, KD | {"answer": "cut off"}, KD | {"answer": "<think>so</think>?"}])
    rows = read_rows(str(path), None, "train", "dataset.path")
    with caplog.at_level(logging.WARNING, "reasoning_irl"):
        assert len(to_records(rows, gsm8k_kd_record, "")) == 1
    (message,) = caplog.messages
    assert "skipped some of 3 rows: 1 have no reasoning" in message
    assert "1 have no number" in message
    assert f"{path}:2" in message
    with pytest.raises(DataError, match="none of the 2 rows can be used: 1 have no reasoning"):
        to_records(rows[1:], gsm8k_kd_record, "")
