"""A run folder as training leaves it: an embedded policy and an untrained reward model."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import set_seed

from reasoning_irl.config import schema, to_config
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from tests.helpers.configs import compose_raw


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    tiny = [f"model.embedded.{key}" for key in ("hidden_size=16", "layers=1", "heads=2")]
    config = compose_raw("config_irl_train", f"training.output_dir={run}", *tiny)
    OmegaConf.save(config, run / "config.yaml", resolve=True)
    checkpoint = run / "checkpoint-10"
    set_seed(0)
    save_embedded(to_config(config, schema.IRLTrainConfig).model.embedded, config.dataset.max_value, checkpoint)
    spec = RewardSpec(schema.RewardHead.likelihood, schema.Granularity.dense, 1)
    for folder in (checkpoint / "reward_model", run / "reward_model_initial"):
        tokenizer = load_tokenizer(str(checkpoint))
        build_reward_model(str(checkpoint), spec, tokenizer).save(folder)
        tokenizer.save_pretrained(folder)
    return run


@pytest.fixture(scope="session")
def reward_folder(run_dir: Path) -> Path:
    """The run's reward model."""
    return run_dir / "checkpoint-10/reward_model"
