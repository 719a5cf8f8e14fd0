"""Samples a run's policy on test problems; writes traces.jsonl and metrics.json. See configs/config_eval.yaml."""

from reasoning_irl.cli.evaluate import main

if __name__ == "__main__":
    main()
