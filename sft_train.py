"""Supervised fine-tuning on the same demonstrations: the baseline of every AIRL run."""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import SFTTrainConfig


@hydra_main("config_sft_train", SFTTrainConfig)
def main(config: SFTTrainConfig) -> None:
    from reasoning_irl.training.jobs import train_sft

    checkpoint = train_sft(config)
    print(f"checkpoint: {checkpoint}\nnext: python evaluate.py run_dir={config.training.output_dir}")


if __name__ == "__main__":
    main()
