"""Adversarial IRL: learns a dense reasoning reward from demonstrations and trains a policy on it."""

from reasoning_irl.cli.irl_train import main

if __name__ == "__main__":
    main()
