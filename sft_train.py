"""Supervised fine-tuning on the same demonstrations: the baseline for every AIRL run."""

from reasoning_irl.cli.sft_train import main

if __name__ == "__main__":
    main()
