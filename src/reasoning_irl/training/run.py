"""The entry point of every training script: the config says which algorithm to run."""

from pathlib import Path

from reasoning_irl.config.schema import Algorithm, GRPOTrainConfig, IRLTrainConfig, SFTTrainConfig, TrainConfig
from reasoning_irl.models.backend import prepare_backend
from reasoning_irl.tracking import check_login

NAMES = {
    Algorithm.airl: "adversarial IRL (demonstrations)",
    Algorithm.sft: "supervised fine-tuning (demonstrations)",
    Algorithm.grpo: "GRPO on verifiable rewards (answer key)",
}


def run_training(config: TrainConfig) -> Path:
    """Runs `config.algorithm` and returns the last checkpoint's folder."""
    run_dir = config.training.output_dir
    print(f"{NAMES[config.algorithm]}: {config.model.policy_name} on {config.dataset.name}, into {run_dir}")
    check_login(config.wandb)
    prepare_backend(config)  # before anything imports transformers
    from reasoning_irl.training.jobs import train_airl, train_grpo, train_sft

    if isinstance(config, IRLTrainConfig):
        checkpoint = train_airl(config)
    elif isinstance(config, SFTTrainConfig):
        checkpoint = train_sft(config)
    else:
        assert isinstance(config, GRPOTrainConfig)
        checkpoint = train_grpo(config)
    print(f"checkpoint: {checkpoint}\nnext: python evaluate.py run_dir={run_dir}")
    return checkpoint
