"""Scores sampled traces with a run's reward model: reranking, AUROC, first errors. See configs/config_irl_eval.yaml."""

from pathlib import Path

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.utils.imports import without_collection


@hydra_main("config_irl_eval", IRLEvalConfig)
def main(config: IRLEvalConfig) -> None:
    from reasoning_irl.tracking import check_login, log_evaluation
    from reasoning_irl.utils.run_folder import REPORT_FILE, check_can_write, check_is_run, check_traces

    check_login(config.wandb)
    check_can_write(Path(config.output_dir))
    if config.run_dir is not None:
        check_is_run(config.run_dir, None if config.model.reward_path else config.checkpoint)
    if config.eval.traces is not None:
        check_traces(Path(config.eval.traces))
    with without_collection():
        from reasoning_irl.eval.evaluate_irl import run_irl_evaluation

    metrics = run_irl_evaluation(config)
    log_evaluation(config, "evaluate_irl", metrics, Path(config.output_dir) / REPORT_FILE)
