"""The training jobs, from a checked config to a finished run folder: data, models, warm start, trainer, checkpoint."""

import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import TaskType
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from reasoning_irl.config import schema
from reasoning_irl.data.alignment import TokenBridge
from reasoning_irl.data.loading import load_annotated, load_train
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import check_prompt_lengths
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.loading import load_policy, load_tokenizer, policy_source, trainable_policy, with_lora
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model, load_reward_model
from reasoning_irl.rewards.verifiable import answer_reward, format_reward
from reasoning_irl.tracking import wandb_run
from reasoning_irl.training.airl_trainer import AIRLTrainer
from reasoning_irl.training.arguments import callbacks, grpo_arguments, trainer_arguments
from reasoning_irl.training.completions import CompletionsLog
from reasoning_irl.training.discriminator import Discriminator
from reasoning_irl.training.experts import ExpertPool
from reasoning_irl.training.grpo import VerifierTrainer
from reasoning_irl.training.sft import run_sft
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import check_run_folder, newest_checkpoint, record_run

COMPLETIONS_FILE, SECONDS_FILE = "completions.jsonl", "seconds.json"


def train_airl(config: schema.IRLTrainConfig) -> Path:
    """Runs adversarial IRL and returns the last checkpoint's folder."""
    training, run_dir = config.training, Path(config.training.output_dir)
    check_run_folder(run_dir, resume=training.resume)
    data = load_train(config.dataset)
    if not training.resume:
        record_run(config, run_dir)
    set_seed(config.seed)
    source = policy_source(config.model, config.dataset.max_value, run_dir)
    tokenizer = load_tokenizer(source)
    records = [*data.train, *data.heldout]
    check_prompt_lengths(tokenizer, records, training.max_prompt_length)
    checkpoint = newest_checkpoint(run_dir) if training.resume else None
    reward_tokenizer = load_tokenizer(
        str(checkpoint / "reward_model") if checkpoint else config.model.reward_name or source
    )
    bridge = TokenBridge(tokenizer, reward_tokenizer, records)
    if config.model.reward_form == schema.RewardForm.airl and not bridge.is_identity:
        raise UserError(
            "model.reward_form=airl takes the policy's log-probability off the reward at each token, so both models "
            "need one tokenizer: choose model.reward_name from the policy's family, or model.reward_form=logit"
        )
    if config.warm_start.enabled:
        source = _warm_start(config, source, tokenizer, run_dir)

    spec = RewardSpec(
        config.model.reward_head,
        config.model.reward_granularity,
        config.model.reward_interval,
        config.dataset.system_prompt,
    )
    if checkpoint:
        reward_model = load_reward_model(checkpoint / "reward_model", reward_tokenizer, config.model.load_in_4bit)
    else:
        lora = config.model.reward_lora
        reward_model = build_reward_model(
            config.model.reward_name or source,
            spec,
            reward_tokenizer,
            config.model.load_in_4bit,
            frozen=lora.rank > 0,
        )
        reward_model.backbone = with_lora(reward_model.backbone, lora, TaskType.TOKEN_CLS)
        # Kept as a baseline: what the reward is worth before it has learnt anything.
        reward_model.save(run_dir / "reward_model_initial")
        reward_tokenizer.save_pretrained(run_dir / "reward_model_initial")
    updates = config.model.reward_warmup_steps + training.max_steps * config.model.reward_updates_per_policy_step
    cpu_logprobs.install()
    trainer = AIRLTrainer(
        model=_policy(config, source),
        args=grpo_arguments(config),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([record.as_row() for record in data.train]),
        callbacks=callbacks(config),
        discriminator=Discriminator(reward_model.to(_device()), config.model, updates),
        experts=ExpertPool(
            records,
            tokenizer,
            training.max_completion_length,
            config.model.neg_perturb_fns,
            config.dataset.max_value if config.dataset.name == schema.DatasetName.arithmetic else None,
            config.seed,
            n_drawn=len(data.train),
        ),
        bridge=bridge,
        reward_tokenizer=reward_tokenizer,
        heldout=data.heldout,
        config=config.model,
        guard=config.guard,
        completions=_completions(config),
    )
    start = time.perf_counter()
    if checkpoint:
        trainer.load_discriminator_state(checkpoint)
    elif config.model.reward_warmup_steps:
        trainer.warm_up_discriminator(lambda steps: tqdm(steps, desc="discriminator warm-up", unit="update"))
    with wandb_run(config, "train", run_dir):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # What a baseline with the same wall time is given.
    (run_dir / SECONDS_FILE).write_text(json.dumps({"airl": round(time.perf_counter() - start, 1)}) + "\n")
    return newest_checkpoint(run_dir)


def train_sft(config: schema.SFTTrainConfig) -> Path:
    """Fine-tunes on the experts' demonstrations and returns the checkpoint's folder."""
    training, run_dir = config.training, Path(config.training.output_dir)
    check_run_folder(run_dir, resume=training.resume)
    data = load_train(config.dataset)
    if not training.resume:
        record_run(config, run_dir)
    set_seed(config.seed)
    source = policy_source(config.model, config.dataset.max_value, run_dir)
    tokenizer = load_tokenizer(source)
    check_prompt_lengths(tokenizer, data.train, training.max_prompt_length)
    if config.warm_start.enabled:
        source = _warm_start(config, source, tokenizer, run_dir)
    model = _policy(config, source)
    with wandb_run(config, "train", run_dir):
        return run_sft(
            model,
            tokenizer,
            data.train,
            training.max_completion_length,
            run_dir,
            callbacks(config),
            resume_from=newest_checkpoint(run_dir) if training.resume else None,
            **trainer_arguments(config),
        )


def train_grpo(config: schema.GRPOTrainConfig) -> Path:
    """Runs GRPO on verifiable rewards and returns the last checkpoint's folder."""
    training, run_dir = config.training, Path(config.training.output_dir)
    check_run_folder(run_dir, resume=training.resume)
    data = load_train(config.dataset)
    if not training.resume:
        record_run(config, run_dir)
    set_seed(config.seed)
    source = policy_source(config.model, config.dataset.max_value, run_dir)
    tokenizer = load_tokenizer(source)
    check_prompt_lengths(tokenizer, data.train, training.max_prompt_length)
    if config.warm_start.enabled:
        source = _warm_start(config, source, tokenizer, run_dir)
    cpu_logprobs.install()
    trainer = VerifierTrainer(
        model=_policy(config, source),
        args=grpo_arguments(config, reward_weights=[config.verifier.answer_weight, config.verifier.format_weight]),
        reward_funcs=[answer_reward, format_reward],
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([record.as_row() for record in data.train]),
        callbacks=callbacks(config),
        completions=_completions(config),
    )
    with wandb_run(config, "train", run_dir):
        trainer.train(resume_from_checkpoint=str(newest_checkpoint(run_dir)) if training.resume else None)
    return newest_checkpoint(run_dir)


def _policy(config: schema.TrainConfig, source: str) -> PreTrainedModel:
    training = config.training
    length = training.max_prompt_length + training.max_completion_length
    return trainable_policy(config.model, source, length, training.gradient_checkpointing)


def _completions(config: schema.IRLTrainConfig | schema.GRPOTrainConfig) -> CompletionsLog:
    training = config.training
    return CompletionsLog(
        Path(training.output_dir) / COMPLETIONS_FILE, training.completions_steps, training.n_completions
    )


def _warm_start(
    config: schema.TrainConfig,
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    run_dir: Path,
) -> str:
    """SFT on the annotator's traces into a normal checkpoint folder, which a resumed run finds again."""
    folder = run_dir / "warm_start"
    if (folder / "config.json").is_file():
        return str(folder)
    warm = config.warm_start
    records: list[Record] = load_annotated(config.dataset, warm.n_traces)
    logger.info("warm start: SFT on %d traces of the error-prone annotator", len(records))
    checkpoint = run_sft(
        load_policy(source),
        tokenizer,
        records,
        config.training.max_completion_length,
        folder,
        [],
        num_train_epochs=warm.epochs,
        per_device_train_batch_size=warm.batch_size,
        learning_rate=warm.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        logging_steps=50,
        save_strategy="no",
        seed=config.seed,
    )
    for path in checkpoint.iterdir():
        path.rename(folder / path.name)
    checkpoint.rmdir()
    return str(folder)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
