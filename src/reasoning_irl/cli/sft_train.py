"""Supervised fine-tuning on the same demonstrations: the baseline for every AIRL run.

A config of another algorithm runs that algorithm, as the published commands do; the first line of output names it.
"""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig


@hydra_main("config_sft_train", SFTTrainConfig, IRLTrainConfig, GRPOTrainConfig)
def main(config: SFTTrainConfig | IRLTrainConfig | GRPOTrainConfig) -> None:
    from reasoning_irl.training.run import run_training

    run_training(config)
