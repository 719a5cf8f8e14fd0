"""Scores sampled traces with a run's reward model: reranking, AUROC, first errors. See configs/config_irl_eval.yaml."""

from reasoning_irl.cli.evaluate_irl import main

if __name__ == "__main__":
    main()
