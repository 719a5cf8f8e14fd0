"""GRPO on verifiable rewards (right answer, right format): the baseline that sees the answer key."""

from reasoning_irl.cli.train import main

if __name__ == "__main__":
    main()
