"""Scores sampled traces with a run's reward model: reranking, AUROC, first errors. See configs/config_irl_eval.yaml."""

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import IRLEvalConfig


@hydra_main("config_irl_eval", IRLEvalConfig)
def main(config: IRLEvalConfig) -> None:
    from reasoning_irl.eval.scoring import run_irl_evaluation
    from reasoning_irl.utils.wandb_run import check_login, log_evaluation

    check_login(config.wandb)
    log_evaluation(config, "evaluate_irl", run_irl_evaluation(config))


if __name__ == "__main__":
    main()
