"""Adversarial IRL: learns a dense reasoning reward from demonstrations, and a policy against it.

Without arguments it runs the embedded default, in about two minutes on a laptop's CPU.
"""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import IRLTrainConfig


@hydra_main("config_irl_train", IRLTrainConfig)
def main(config: IRLTrainConfig) -> None:
    from reasoning_irl.training.jobs import train_airl

    checkpoint = train_airl(config)
    print(f"checkpoint: {checkpoint}\nnext: python evaluate.py run_dir={config.training.output_dir}")


if __name__ == "__main__":
    main()
