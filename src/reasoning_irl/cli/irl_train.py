"""Adversarial IRL: learns a dense reasoning reward from demonstrations and trains a policy on it.

Without arguments it runs the embedded default, which takes about two minutes on a laptop CPU.
"""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import GRPOTrainConfig, IRLTrainConfig, OfflineTrainConfig, SFTTrainConfig


@hydra_main("config_irl_train", IRLTrainConfig, OfflineTrainConfig, SFTTrainConfig, GRPOTrainConfig)
def main(config: IRLTrainConfig | OfflineTrainConfig | SFTTrainConfig | GRPOTrainConfig) -> None:
    from reasoning_irl.training.run import run_training

    run_training(config)
