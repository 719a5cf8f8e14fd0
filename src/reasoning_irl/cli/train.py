"""GRPO on verifiable rewards (right answer, right format): the baseline that sees the answer key."""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig


@hydra_main("config_train", GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig)
def main(config: GRPOTrainConfig | IRLTrainConfig | SFTTrainConfig) -> None:
    from reasoning_irl.training.run import run_training

    run_training(config)
