"""A run folder as training leaves it: an embedded policy and an untrained reward model."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import set_seed

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    register()
    tiny = [f"model.embedded.{key}" for key in ("hidden_size=16", "layers=1", "heads=2")]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config_irl_train", overrides=[f"training.output_dir={run}", *tiny])
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
