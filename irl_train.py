"""Adversarial IRL: learns a dense reasoning reward from demonstrations and trains a policy on it.

Without arguments it runs the embedded default, which takes about two minutes on a laptop CPU.
"""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig


@hydra_main("config_irl_train", IRLTrainConfig, SFTTrainConfig, GRPOTrainConfig)
def main(config: IRLTrainConfig | SFTTrainConfig | GRPOTrainConfig) -> None:
    from reasoning_irl.training.run import run_training

    run_training(config)


if __name__ == "__main__":
    main()
