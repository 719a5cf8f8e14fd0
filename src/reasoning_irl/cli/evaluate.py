"""Samples a run's policy on test problems; writes traces.jsonl and metrics.json. See configs/config_eval.yaml."""

from pathlib import Path

from reasoning_irl.config import hydra_main
from reasoning_irl.config.schema import EvalConfig
from reasoning_irl.utils.imports import without_collection


@hydra_main("config_eval", EvalConfig)
def main(config: EvalConfig) -> None:
    from reasoning_irl.models.backend import check_engine
    from reasoning_irl.tracking import check_login, log_evaluation
    from reasoning_irl.utils.processes import is_main
    from reasoning_irl.utils.run_folder import check_can_write, check_is_run, check_not_evaluated

    check_engine(config.sampling)
    check_login(config.wandb)
    check_can_write(Path(config.output_dir))
    check_is_run(config.run_dir, None if config.policy_path else config.checkpoint)
    if is_main():  # which writes to it before the others may have looked
        check_not_evaluated(Path(config.output_dir))
    with without_collection():
        from reasoning_irl.eval.evaluate import run_evaluation  # imports torch

    metrics = run_evaluation(config)
    log_evaluation(config, "evaluate", metrics)
    n = config.sampling.n_samples
    shown = [*(f"pass@{k}" for k in config.eval.ks), f"majority@{n}", f"oracle@{n}"]
    print(f"{metrics['n_problems']} test problems, supervision: {metrics['supervision']}")
    for name in [*shown, "completion_length", "format_ok"]:
        print(f"{name:<18} {metrics[name]:8.3f}  [{metrics[f'{name}/low']:.3f}, {metrics[f'{name}/high']:.3f}]")
