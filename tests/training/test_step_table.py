"""What a terminal shows of a training job."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from reasoning_irl.config.schema import SFTTrainConfig
from reasoning_irl.training import jobs
from reasoning_irl.training.step_table import HEADER_EVERY, StepTable
from tests.helpers.configs import compose_config
from tests.helpers.traces import read_rows

Printed = Callable[[], list[str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out.splitlines()


def test_lines_are_aligned_under_a_header_that_comes_again(printed: Printed) -> None:
    table = StepTable({"loss": "a/loss", "AUROC": "auroc"}, 1000, min_seconds=0)
    for step in range(1, HEADER_EVERY + 2):
        table.add(step, {"a/loss": -1e-9 * step, "other": 1.0})
    table.add(1000, {"a/loss": 0.0, "auroc": 0.75})
    table.close()
    lines = printed()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["step", "loss", "AUROC", "time", "left"]
    assert lines[1].split()[:3] == ["1/1000", "-1.0e-09", "-"]
    assert lines[-1].split() == ["1000/1000", "0.000", "0.750", "00:00", "00:00"]
    assert [n for n, line in enumerate(lines) if line == lines[0]] == [0, HEADER_EVERY + 1]


def test_steps_in_quick_succession_show_the_first_and_the_last(printed: Printed) -> None:
    table = StepTable({"loss": "loss"}, 9, min_seconds=math.inf)
    for step in range(1, 8):
        table.add(step, {"loss": step})
    table.close()
    table.close()
    assert [line.split()[:2] for line in printed()] == [["step", "loss"], ["1/9", "1.000"], ["7/9", "7.000"]]


def test_job_prints_lines_instead_of_dictionaries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def train(name: str) -> None:
        given = ("scale=smoke", f"training.output_dir={tmp_path / name}", "training.max_steps=2")
        jobs.train_sft(compose_config("llama3b/sft_3B_config_train", SFTTrainConfig, *given))

    train("quiet")
    printed, bar = capsys.readouterr(), "| 0/2 ["
    assert [line.split()[0] for line in printed.out.splitlines()] == ["memory:", "step", "1/2", "2/2"]
    assert bar not in printed.err
    assert {"loss", "grad_norm", "epoch"} <= read_rows(tmp_path / "quiet/train_log.jsonl")[0].keys()
    with caplog.at_level(logging.DEBUG, "reasoning_irl"):
        train("verbose")
    printed = capsys.readouterr()
    assert "'grad_norm':" in printed.out
    assert bar in printed.err
