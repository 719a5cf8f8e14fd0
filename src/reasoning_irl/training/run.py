"""The entry point of every training script: the config says which algorithm to run."""

from pathlib import Path
from typing import assert_never

from reasoning_irl.config.schema import (
    GENERATED,
    Algorithm,
    GRPOTrainConfig,
    IRLTrainConfig,
    OfflineTrainConfig,
    SFTTrainConfig,
    TrainConfig,
)
from reasoning_irl.models.backend import prepare_backend
from reasoning_irl.tracking import check_login
from reasoning_irl.utils.imports import without_collection
from reasoning_irl.utils.processes import is_main
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.run_folder import check_run_folder

NAMES = {
    Algorithm.airl: "adversarial IRL (demonstrations)",
    Algorithm.sft: "supervised fine-tuning (demonstrations)",
    Algorithm.grpo: "GRPO on verifiable rewards (answer key)",
    Algorithm.offline: "offline reward (demonstrations and samples)",
}


def run_training(config: TrainConfig) -> Path:
    """Runs `config.algorithm` and returns the last checkpoint's folder."""
    run_dir = config.training.output_dir
    model = config.model.reward_name if isinstance(config, OfflineTrainConfig) else config.model.policy_name
    print(f"{NAMES[config.algorithm]}: {model} on {config.dataset.name}, into {run_dir}", flush=True)
    check_login(config.wandb)
    if is_main():  # which writes to it before the others may have looked
        check_run_folder(Path(run_dir), resume=config.training.resume)
    with without_collection():
        prepare_backend(config)  # before anything imports transformers
        from reasoning_irl.model_card import write_run_card
        from reasoning_irl.training.jobs import train_airl, train_grpo, train_offline, train_sft

    match config:
        case IRLTrainConfig():
            checkpoint = train_airl(config)
        case SFTTrainConfig():
            checkpoint = train_sft(config)
        case GRPOTrainConfig():
            checkpoint = train_grpo(config)
        case OfflineTrainConfig():
            checkpoint = train_offline(config)
        case _:
            assert_never(config)
    if is_main():
        write_run_card(Path(run_dir))
    print(f"checkpoint: {checkpoint}\nnext: {_next_command(config)} run_dir={run_dir}")
    return checkpoint


def _next_command(config: TrainConfig) -> str:
    if not isinstance(config, OfflineTrainConfig):
        return command("evaluate.py")
    planted = "" if config.dataset.test_path or config.dataset.name in GENERATED else " eval.n_planted=0"
    return f"{command('evaluate_irl.py')} --config-name=base/irl_eval eval.traces=TRACES{planted}"
