"""The training jobs, from a checked config to a finished run folder: data, models, warm start, trainer, checkpoint."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import TaskType
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import GRPOTrainer

from reasoning_irl.config import schema
from reasoning_irl.data.alignment import TokenBridge
from reasoning_irl.data.loading import TrainData, load_annotated, load_train, number_limit
from reasoning_irl.data.records import Record
from reasoning_irl.data.samples import read_samples
from reasoning_irl.data.tokens import TokenSequence, check_prompt_lengths, encode_record
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.backend import keep_from_unsloth
from reasoning_irl.models.loading import (
    load_policy,
    load_tokenizer,
    model_of,
    policy_source,
    trainable_policy,
    with_lora,
)
from reasoning_irl.models.reward_model import (
    RewardModel,
    RewardSpec,
    build_reward_model,
    check_continued,
    load_reward_model,
    trained_reward,
)
from reasoning_irl.rewards.verifiable import answer_reward, format_reward
from reasoning_irl.text.token_spans import decode
from reasoning_irl.text.trace import is_well_formed
from reasoning_irl.tracking import log_artifact, wandb_run
from reasoning_irl.training.airl_trainer import GUARD_FILE, AIRLTrainer
from reasoning_irl.training.arguments import callbacks, device_arguments, grpo_arguments, trainer_arguments
from reasoning_irl.training.callbacks import StopOnSignal, append_step, seconds_before
from reasoning_irl.training.completions import CompletionsLog
from reasoning_irl.training.discriminator import Discriminator
from reasoning_irl.training.experts import ExpertPool, SamplePool
from reasoning_irl.training.grpo import VerifierTrainer
from reasoning_irl.training.non_finite import NonFiniteSteps
from reasoning_irl.training.offline import OfflineTrainer, split_samples
from reasoning_irl.training.preflight import check_room, policy_footprint, reward_footprint
from reasoning_irl.training.retention import Retention
from reasoning_irl.training.sft import run_sft
from reasoning_irl.training.step_table import AIRL, GRPO, WARM_UP, StepTable, show_steps
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import (
    INITIAL_REWARD_MODEL,
    PART,
    REWARD_MODEL,
    TRAIN_LOG,
    check_run_folder,
    checkpoint_to_resume,
    newest_checkpoint,
    record_resumed,
    record_run,
    step_of,
    trim_rows,
)

CENTRED_ON = 256  # experts on which an additive reward starts at a mean of zero
COMPLETIONS_FILE, SECONDS_FILE = "completions.jsonl", "seconds.json"


@dataclass(frozen=True)
class Started:
    """What every job has before its models are built."""

    run_dir: Path
    checkpoint: Path | None  # the one to resume from
    data: TrainData
    source: str  # the folder or hub name that the policy starts from; of an offline run, the reward model
    tokenizer: PreTrainedTokenizerBase  # of `source`
    finished: Path | None  # the last checkpoint, if there is nothing left to train; the library would make a step more


def train_airl(config: schema.IRLTrainConfig) -> Path:
    """Runs adversarial IRL and returns the last checkpoint's folder."""
    _check_continued(config)
    started = _start(config)
    if started.finished:
        return started.finished
    check_prompt_lengths(started.tokenizer, started.data.heldout, config.training.max_prompt_length)
    reward_tokenizer, bridge = _bridge(config, started)
    source = _warm_start(config, started)
    reward_model = _reward_model(config, started, source, reward_tokenizer)
    updates = config.model.reward_warmup_steps + config.training.max_steps * config.model.reward_updates_per_policy_step
    cpu_logprobs.install()
    trainer = AIRLTrainer(
        model=_policy(config, source),
        args=grpo_arguments(config),
        processing_class=started.tokenizer,
        train_dataset=_rows(started.data.train),
        callbacks=callbacks(config, stop := StopOnSignal()),
        discriminator=Discriminator(reward_model.to(_device()), config.model, updates),
        experts=expert_pool(config, started.tokenizer, started.data),
        bridge=bridge,
        reward_tokenizer=reward_tokenizer,
        heldout=started.data.heldout,
        config=config.model,
        guard=config.guard,
        completions=_completions(config),
        retention=Retention.of(config.training),
    )
    keep_from_unsloth(reward_model)
    start = time.perf_counter() - seconds_before(started.run_dir / TRAIN_LOG)
    show_steps(trainer, AIRL, config.training.max_seconds)
    with wandb_run(config, "train", started.run_dir) as run:
        if started.checkpoint:
            trainer.load_discriminator_state(started.checkpoint)
        else:
            _warm_up(trainer, run, started.run_dir / TRAIN_LOG)
        checkpoint = _train(trainer, started, stop)
        _log_reward_model(config, run, checkpoint)
    stop.exit_if_asked()
    if trainer.stop_reason:
        raise UserError(
            f"the guard ended the run: {trainer.stop_reason}; see {TRAIN_LOG} and {COMPLETIONS_FILE}, and resume with "
            "other guard.* limits or reactions, or start anew with other settings"
        )
    # To compare methods at equal cost; steps that a killed run made again count once.
    seconds = {"airl": round(time.perf_counter() - start, 1)}
    if processes.is_main():
        (started.run_dir / SECONDS_FILE).write_text(json.dumps(seconds) + "\n")
    return checkpoint


def train_sft(config: schema.SFTTrainConfig) -> Path:
    """Fine-tunes on the experts' demonstrations and returns the checkpoint's folder."""
    started = _start(config)
    if started.finished:
        return started.finished
    model = _policy(config, _warm_start(config, started))
    with wandb_run(config, "train", started.run_dir), StopOnSignal() as stop:
        checkpoint = run_sft(
            model,
            started.tokenizer,
            started.data.train,
            config.training.max_completion_length,
            started.run_dir,
            callbacks(config, stop),
            resume_from=started.checkpoint,
            max_seconds=config.training.max_seconds,
            retention=Retention.of(config.training),
            **trainer_arguments(config),
        )
    stop.exit_if_asked()
    return checkpoint


def train_grpo(config: schema.GRPOTrainConfig) -> Path:
    """Runs GRPO on verifiable rewards and returns the last checkpoint's folder."""
    started = _start(config)
    if started.finished:
        return started.finished
    source = _warm_start(config, started)
    is_unsloth, tokenizer = config.model.backend == schema.Backend.unsloth, started.tokenizer
    if is_unsloth and tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"the tokenizer of {source} pads with its end token, which Unsloth's GRPO then does not train: set "
            "model.backend=transformers, or use a tokenizer with a pad token"
        )
    cpu_logprobs.install()
    trainer = VerifierTrainer(
        model=_policy(config, source),
        args=grpo_arguments(config, reward_weights=[config.verifier.answer_weight, config.verifier.format_weight]),
        reward_funcs=[answer_reward, format_reward],
        processing_class=started.tokenizer,
        train_dataset=_rows(started.data.train),
        callbacks=callbacks(config, stop := StopOnSignal()),
        completions=_completions(config),
        retention=Retention.of(config.training),
    )
    show_steps(trainer, GRPO, config.training.max_seconds)
    with wandb_run(config, "train", started.run_dir):
        checkpoint = _train(trainer, started, stop)
    stop.exit_if_asked()
    return checkpoint


def train_offline(config: schema.OfflineTrainConfig) -> Path:
    """Learns a reward from demonstrations and a file of samples, and returns the last checkpoint's folder."""
    training = config.training
    check_run_folder(Path(training.output_dir), resume=training.resume)
    _check_continued(config)
    # Before the run is recorded, so that a mended file can be used with the same command.
    assert config.model.reward_name is not None  # checked with the config
    samples = read_samples(
        Path(config.dataset.samples_path),
        load_tokenizer(_tokenizer_of_reward(config.model.reward_name, None) or config.model.reward_name),
        config.dataset.system_prompt,
        training.max_prompt_length,
        training.max_completion_length,
    )
    started = _start(config)
    tokenizer, data = started.tokenizer, started.data
    _warn_of_format(samples, tokenizer)
    check_prompt_lengths(tokenizer, data.heldout, training.max_prompt_length)
    experts = expert_pool(config, tokenizer, data)
    split = split_samples(samples, {experts.sequence(record).prompt_ids for record in data.heldout}, config.seed)
    print(
        f"{len(data.train)} experts and {len(split.train)} samples to learn from; {len(data.heldout)} experts and "
        f"{len(split.heldout)} samples held out"
    )
    model = _reward_model(config, started, started.source, tokenizer).to(_device())
    with wandb_run(config, "train", started.run_dir) as run, StopOnSignal() as stop:
        trainer = OfflineTrainer(
            discriminator=Discriminator(model, config.model, training.max_steps),
            experts=experts,
            samples=SamplePool(split.train, config.seed),
            heldout=data.heldout,
            heldout_samples=split.heldout,
            tokenizer=tokenizer,
            config=training,
            stop=stop,
            run=run,
        )
        if started.checkpoint:
            trainer.load_state(started.checkpoint)
        checkpoint = trainer.train()
        _log_reward_model(config, run, checkpoint)
    stop.exit_if_asked()
    return checkpoint


def _warn_of_format(samples: list[TokenSequence], tokenizer: PreTrainedTokenizerBase) -> None:
    """Warns if most samples lack the tags that every expert's trace has."""
    well_formed = sum(is_well_formed(decode(tokenizer, s.completion_ids)) for s in samples)
    if 2 * well_formed < len(samples):
        logger.warning(
            "%d of %d samples are not written as <think>...</think><answer>...</answer>, as the experts are: the "
            "reward will learn that difference and little else",
            len(samples) - well_formed,
            len(samples),
        )


def _start(config: schema.TrainConfig) -> Started:
    """Checks the run folder, loads the data, records the run, seeds, and finds the trained model's start."""
    training, run_dir = config.training, Path(config.training.output_dir)
    if processes.is_main():
        check_run_folder(run_dir, resume=training.resume)
    data = load_train(config.dataset)
    checkpoint = processes.from_main(_resumed(config, run_dir) if processes.is_main() else None)
    set_seed(config.seed)
    if isinstance(config, schema.OfflineTrainConfig):
        assert config.model.reward_name is not None  # checked with the config
        source = config.model.reward_name
        tokenizer = load_tokenizer(_tokenizer_of_reward(source, checkpoint) or source)
    else:
        source = policy_source(config.model, config.dataset.max_value, run_dir)
        tokenizer = load_tokenizer(source)
    check_prompt_lengths(tokenizer, data.train, training.max_prompt_length)
    done = step_of(checkpoint) if checkpoint else 0
    is_finished = checkpoint is not None and done >= training.max_steps
    if not is_finished:
        _check_room(config, source, training.max_steps - done)
    if not training.resume and processes.is_main():
        record_run(config, run_dir)  # what is refused before leaves no run behind
    return Started(run_dir, checkpoint, data, source, tokenizer, checkpoint if is_finished else None)


def _check_room(config: schema.TrainConfig, source: str, steps_left: int) -> None:
    """Says what the run takes, and raises UserError if there is no room for it."""
    try:
        if isinstance(config, schema.OfflineTrainConfig):
            footprint = reward_footprint(config, str(trained_reward(source) or model_of(source)))
        else:
            footprint = policy_footprint(config, source)
        if isinstance(config, schema.IRLTrainConfig):
            name = config.model.reward_name
            footprint += reward_footprint(config, str(trained_reward(name) or model_of(name)) if name else source)
    except UserError as error:  # loading will say it, if the model itself is the reason
        logger.info("memory and disk are not estimated: %s", error)
        return
    check_room(footprint, config.training, steps_left)


def _resumed(config: schema.TrainConfig, run_dir: Path) -> Path | None:
    """Records that a run is resumed; returns the checkpoint that it goes on from. None of a new run."""
    shutil.rmtree(run_dir / PART, ignore_errors=True)  # of a run that was killed
    if not config.training.resume:
        return None
    checkpoint = checkpoint_to_resume(run_dir, processes.world_size())
    if isinstance(config, schema.IRLTrainConfig) and checkpoint and not (checkpoint / GUARD_FILE).is_file():
        raise UserError(
            f"{checkpoint} is of an older version, which cannot be resumed: start another run from it with "
            f"model.checkpoint={run_dir}"
        )
    record_resumed(config, run_dir)
    if checkpoint is None:
        logger.warning("%s has no checkpoint to resume from: it starts from the beginning again", run_dir)
    for name in (TRAIN_LOG, COMPLETIONS_FILE):
        trim_rows(run_dir / name, step_of(checkpoint) if checkpoint else -1)
    return checkpoint


def expert_pool(
    config: schema.IRLTrainConfig | schema.OfflineTrainConfig, tokenizer: PreTrainedTokenizerBase, data: TrainData
) -> ExpertPool:
    """All experts in the tokenizer's tokens; only those to learn from are drawn."""
    return ExpertPool(
        [*data.train, *data.heldout],
        tokenizer,
        config.training.max_completion_length,
        config.model.neg_perturb_fns,
        number_limit(config.dataset),
        config.seed,
        n_drawn=len(data.train),
        keeps_copies=_n_frozen(config.model) > 0,
    )


def _n_frozen(model: schema.DiscriminatorConfig) -> int:
    return model.reward_frozen_layers if isinstance(model, schema.OfflineModelConfig) else 0


def _tokenizer_of_reward(name: str | None, checkpoint: Path | None) -> str | None:
    """The folder or hub name of the tokenizer of a reward model that starts from `name`, or from a checkpoint."""
    if checkpoint:
        return str(checkpoint / REWARD_MODEL)
    if name is None:
        return None
    trained = trained_reward(name)
    return str(trained) if trained else model_of(name)


def _bridge(config: schema.IRLTrainConfig, started: Started) -> tuple[PreTrainedTokenizerBase, TokenBridge]:
    """The reward model's tokenizer, and the bridge to it from the policy's tokens."""
    name = _tokenizer_of_reward(config.model.reward_name, started.checkpoint) or started.source
    reward_tokenizer = load_tokenizer(name)
    bridge = TokenBridge(started.tokenizer, reward_tokenizer, [*started.data.train, *started.data.heldout])
    if config.model.reward_form == schema.RewardForm.airl and not bridge.is_identity:
        raise UserError(
            "model.reward_form=airl subtracts the policy's log-probability from the reward of each token, so both "
            "models need the same tokenizer: choose model.reward_name from the policy's family, or "
            "model.reward_form=logit"
        )
    return reward_tokenizer, bridge


def _spec(config: schema.IRLTrainConfig | schema.OfflineTrainConfig) -> RewardSpec:
    model = config.model
    return RewardSpec(
        model.reward_head,
        model.reward_granularity,
        model.reward_interval,
        config.dataset.system_prompt,
        model.discriminator_logit,
        model.dtype,
    )


def _check_continued(config: schema.IRLTrainConfig | schema.OfflineTrainConfig) -> None:
    """Raises UserError if the run starts from a trained reward model that the config reads or adapts otherwise."""
    trained = trained_reward(config.model.reward_name) if config.model.reward_name else None
    if trained:
        check_continued(trained, _spec(config), config.model.reward_lora, config.model.reward_layers)


def _reward_model(
    config: schema.IRLTrainConfig | schema.OfflineTrainConfig,
    started: Started,
    source: str,
    tokenizer: PreTrainedTokenizerBase,
) -> RewardModel:
    """The reward model of the checkpoint, or the one that the run starts from, which is also saved as it is."""
    model = config.model
    n_frozen = _n_frozen(model)
    set_seed(config.seed)  # new weights do not depend on what came before, which a resumed run may skip
    if started.checkpoint:
        reward_model = load_reward_model(started.checkpoint / REWARD_MODEL, tokenizer, model.load_in_4bit)
        return _prepared(reward_model, config)
    name = model_of(model.reward_name) if model.reward_name else source
    spec = _spec(config)
    trained = trained_reward(model.reward_name) if model.reward_name else None
    if trained:
        reward_model = load_reward_model(trained, tokenizer, model.load_in_4bit)
        reward_model.spec = spec
    else:
        frozen = model.reward_lora.rank > 0
        reward_model = build_reward_model(name, spec, tokenizer, model.load_in_4bit, frozen, model.reward_layers)
        backbone = reward_model.backbone
        reward_model.backbone = with_lora(backbone, model.reward_lora, TaskType.TOKEN_CLS, n_frozen=n_frozen)
        if reward_model.likelihood is not None and model.discriminator_logit == schema.DiscriminatorLogit.additive:
            is_airl = isinstance(model, schema.RewardModelConfig) and model.reward_form == schema.RewardForm.airl
            experts = [] if is_airl else started.data.train[:CENTRED_ON]
            length = config.training.max_completion_length
            sequences = [encode_record(tokenizer, record, record.target, length) for record in experts]
            reward_model.centre(sequences, model.reward_micro_batch_size)
    # A baseline for the evaluation: the reward before training.
    if processes.is_main():
        reward_model.save(started.run_dir / INITIAL_REWARD_MODEL)
        tokenizer.save_pretrained(started.run_dir / INITIAL_REWARD_MODEL)
    return _prepared(reward_model, config)


def _prepared(model: RewardModel, config: schema.IRLTrainConfig | schema.OfflineTrainConfig) -> RewardModel:
    """The reward model with its layers frozen and checkpointed as configured."""
    if n_frozen := _n_frozen(config.model):
        model.freeze_layers(n_frozen)
    if config.training.gradient_checkpointing:
        model.checkpoint_layers()
    return model


def _warm_up(trainer: AIRLTrainer, run: Any, log: Path) -> None:
    """Warms the discriminator up, and logs each update as of step 0, also to the W&B run if there is one."""
    n = trainer.config.reward_warmup_steps
    if n == 0:
        return
    print(f"discriminator warm-up: {n} updates on experts and edited copies")
    if run is not None:
        run.define_metric("warm_up/*", step_metric="warm_up/update")
    table, start = StepTable(WARM_UP, n), time.perf_counter()
    for update, metrics in enumerate(trainer.warm_up_discriminator(), 1):
        logs = {"warm_up/update": update, **{f"warm_up/{name.rpartition('/')[2]}": v for name, v in metrics.items()}}
        if processes.is_main():
            append_step(log, 0, time.perf_counter() - start, logs)
        if run is not None:
            run.log(logs)
        table.add(update, metrics)
    table.close()


def _log_reward_model(config: schema.IRLTrainConfig | schema.OfflineTrainConfig, run: Any, checkpoint: Path) -> None:
    if run is not None and config.wandb.log_reward_model:
        log_artifact(run, "reward_model", checkpoint / REWARD_MODEL)


def _train(trainer: GRPOTrainer, started: Started, stop: StopOnSignal) -> Path:
    """Trains to the end and returns the last checkpoint's folder."""
    with stop:
        trainer.train(resume_from_checkpoint=str(started.checkpoint) if started.checkpoint else None)
    return newest_checkpoint(started.run_dir)


def _rows(records: Sequence[Record]) -> Dataset:
    """`index` is a record's place among the experts."""
    return Dataset.from_list([{**record.as_row(), "index": index} for index, record in enumerate(records)])


def _policy(config: schema.PolicyTrainConfig, source: str) -> PreTrainedModel:
    training = config.training
    length = training.max_prompt_length + training.max_completion_length
    set_seed(config.seed)  # as for the reward model
    return trainable_policy(config.model, source, length, training.gradient_checkpointing, config.seed)


def _completions(config: schema.IRLTrainConfig | schema.GRPOTrainConfig) -> CompletionsLog:
    training = config.training
    return CompletionsLog(
        Path(training.output_dir) / COMPLETIONS_FILE, training.completions_steps, training.n_completions
    )


def _warm_start(config: schema.PolicyTrainConfig, started: Started) -> str:
    """What the policy starts from: the warm start if one is enabled, else its own source.

    The warm start is SFT on the annotator's traces into an ordinary checkpoint folder, which a resumed run finds again.
    """
    if not config.warm_start.enabled:
        return started.source
    folder = started.run_dir / "warm_start"
    if folder.is_dir():  # it was renamed when it was whole
        return str(folder)
    warm = config.warm_start
    records = load_annotated(config.dataset, warm.n_traces)
    print(f"warm start: SFT on {len(records)} traces of the error-prone annotator", flush=True)
    checkpoint = run_sft(
        load_policy(started.source),
        started.tokenizer,
        records,
        config.training.max_completion_length,
        started.run_dir / PART / "warm_start",
        [],
        non_finite=NonFiniteSteps(started.run_dir, "warm_start.learning_rate"),
        num_train_epochs=warm.epochs,
        per_device_train_batch_size=warm.batch_size // processes.world_size(),
        learning_rate=warm.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        logging_steps=50,
        save_strategy="no",
        save_only_model=True,
        seed=config.seed,
        **device_arguments(config.model.dtype),
    )
    if processes.is_main():
        checkpoint.rename(folder)
        shutil.rmtree(started.run_dir / PART)
    processes.barrier()
    return str(folder)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
