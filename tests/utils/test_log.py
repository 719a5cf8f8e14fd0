"""The libraries' messages that are left out, and those that are not."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.log import is_unexpected


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What transformers logs on loading a model."""
    found: list[logging.LogRecord] = []
    logger = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        found.append(record)
        return True

    logger.addFilter(keep)
    yield found
    logger.removeFilter(keep)


def test_new_score_head_is_expected(
    make_reward_model: Callable[..., RewardModel], records: list[logging.LogRecord]
) -> None:
    make_reward_model()
    (report,) = records
    assert "score.weight" in report.getMessage()
    assert not is_unexpected(report)


@pytest.mark.parametrize("as_reward", [True, False])
def test_missing_weights_are_reported(
    embedded_folder: Path,
    make_reward_model: Callable[..., RewardModel],
    records: list[logging.LogRecord],
    tmp_path: Path,
    as_reward: bool,
) -> None:
    load_tokenizer(str(embedded_folder)).save_pretrained(tmp_path)
    load_policy(str(embedded_folder)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    if as_reward:
        make_reward_model(name=tmp_path)
    else:
        load_policy(str(tmp_path))
    (report,) = records
    assert is_unexpected(report)
