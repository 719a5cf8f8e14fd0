"""The libraries' messages that are left out, and those that are not."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from reasoning_irl.models.loading import load_policy
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.errors import UserError
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


@pytest.mark.parametrize(("as_reward", "missing"), [(True, "model.layers.1.mlp.up_proj.weight"), (False, "lm_head")])
def test_missing_weights_are_reported_and_refused(
    embedded_folder: Path,
    make_reward_model: Callable[..., RewardModel],
    records: list[logging.LogRecord],
    tmp_path: Path,
    as_reward: bool,
    missing: str,
) -> None:
    shutil.copytree(embedded_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    weights = load_file(tmp_path / "model.safetensors")  # with tied embeddings, so without lm_head
    save_file({k: v for k, v in weights.items() if k != missing}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"has no weights for {missing}"):
        make_reward_model(name=tmp_path) if as_reward else load_policy(str(tmp_path))
    (report,) = records
    assert "MISSING" in report.getMessage()
    assert is_unexpected(report)


def test_other_messages_about_a_reward_model_stay() -> None:
    message = "LlamaForTokenClassification has no attention"
    assert is_unexpected(logging.LogRecord("transformers", logging.WARNING, "", 0, message, None, None))
