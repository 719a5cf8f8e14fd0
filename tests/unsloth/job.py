"""One training job in a process of its own, as the scripts run it: python job.py CONFIG OVERRIDE..."""

import sys

from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.config.schema import GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig
from reasoning_irl.training.run import run_training

if __name__ == "__main__":
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose(sys.argv[1], overrides=sys.argv[2:])
    run_training(to_config(composed, IRLTrainConfig, SFTTrainConfig, GRPOTrainConfig))
    assert "unsloth" in sys.modules
