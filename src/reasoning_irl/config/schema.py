"""Every configuration key: its type, its allowed values, what it means. The values stand in configs/.

Fields have no defaults here, so that a value stands once, in YAML; Hydra types them (an unknown key or a wrong
type fails at composition) and `reasoning_irl.config.validate` checks ranges before any model loads. This file is
light on purpose: `--help` and `--cfg job` import it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING


class Schedule(StrEnum):
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    linear = "linear"
    cosine = "cosine"


class Algorithm(StrEnum):
    airl = "airl"
    sft = "sft"
    grpo = "grpo"


class DatasetName(StrEnum):
    arithmetic = "arithmetic"
    gsm8k = "gsm8k"
    gsm8k_kd = "gsm8k_kd"
    countdown = "countdown"
    medreason = "medreason"
    medical_kd = "medical_kd"  # the published configuration's name of medreason
    jsonl = "jsonl"


class Backend(StrEnum):
    transformers = "transformers"
    unsloth = "unsloth"


class Optimizer(StrEnum):
    adamw_torch = "adamw_torch"
    adamw_8bit = "adamw_8bit"
    paged_adamw_8bit = "paged_adamw_8bit"


class ClassifierLoss(StrEnum):
    bce = "bce"
    wgan = "wgan"
    pairwise = "pairwise"


class RewardHead(StrEnum):
    plain = "plain"
    likelihood = "likelihood"


class RewardKind(StrEnum):
    auto = "auto"  # what the folder says
    airl = "airl"  # a reward model that was trained here
    token = "token"  # a token-classification head
    sequence = "sequence"  # a sequence-classification head: one score of a text
    prm = "prm"  # a step-wise process reward model, read at a separator behind each step
    logprob = "logprob"  # a causal language model's log-probability


class RewardForm(StrEnum):
    logit = "logit"
    airl = "airl"


class Granularity(StrEnum):
    sparse = "sparse"
    step = "step"
    interval = "interval"
    dense = "dense"


class PerturbationKind(StrEnum):
    operator_flip = "operator_flip"
    nearby_answer = "nearby_answer"
    answer_from_trace = "answer_from_trace"
    number_corruption = "number_corruption"
    wrong_quantity = "wrong_quantity"
    other_option = "other_option"


class AnswerKind(StrEnum):
    """What makes an answer right; see rewards/checking.py."""

    text = "text"  # it states the reference's number, or its words
    option = "option"  # it names the same option of those that the question shows
    expression = "expression"  # it makes the question's target from the question's numbers


class AdvantageCalculation(StrEnum):
    grpo = "grpo"
    prime = "prime"
    trace_mean = "trace_mean"


class AdvantageBaseline(StrEnum):
    group = "group"
    position = "position"


class WandbMode(StrEnum):
    online = "online"
    offline = "offline"
    disabled = "disabled"


# What a row that cannot be used does to an evaluation. Not a class: `raise` is a word of Python's own.
OnError = StrEnum("OnError", ["raise", "skip"])


def bounded(low: float | None = None, high: float | None = None, *, above: float | None = None) -> Any:
    """A required field whose value lies in [low, high], or strictly above `above`; None values are let through."""
    return field(default=MISSING, metadata={"low": low, "high": high, "above": above})


@dataclass
class WandbConfig:
    mode: WandbMode = MISSING
    entity: str | None = MISSING  # team or user; null: the account's own
    project: str = MISSING
    group: str = MISSING  # runs that belong together, such as the seeds and ablations of one model
    run_name: str = MISSING
    tags: list[str] = MISSING


@dataclass
class EmbeddedModelConfig:
    """The small Llama that `policy_name: embedded` builds."""

    hidden_size: int = bounded(8)
    layers: int = bounded(1)
    heads: int = bounded(1)
    initializer_range: float = bounded(above=0)
    max_positions: int = bounded(32)


@dataclass
class AnnotatorConfig:
    """Error rates of the arithmetic annotator; see data/arithmetic.py."""

    misread: float = bounded(0, 1)
    distracted: float = bounded(0, 1)
    slip: float = bounded(0, 1)


@dataclass
class CountdownConfig:
    """Problems of data/countdown.py."""

    n_numbers: int = bounded(2, 6)
    max_number: int = bounded(2, 1000)


@dataclass
class DatasetConfig:
    name: DatasetName = MISSING
    path: str | None = MISSING  # training file or folder; null: the set's place on the hub, if it has one
    test_path: str | None = MISSING  # held-out test file or folder; null: as above
    system_prompt: str = MISSING  # empty: no system message
    n_train: int | None = bounded(1)  # experts to learn from; null: all
    n_heldout: int = bounded(2)  # experts kept out of training, for the discriminator's AUROC
    seed: int = bounded(0)  # of the problems themselves; the same for every run that is compared
    max_value: int = bounded(20, 500)  # arithmetic: numbers lie in 0..max_value
    max_steps: int = bounded(1, 8)  # arithmetic
    distractor_rate: float = bounded(0, 1)  # arithmetic: share of problems with a number that does not count
    annotator: AnnotatorConfig = MISSING
    countdown: CountdownConfig = MISSING
    expert_error_rate: float = bounded(0, 1)  # share of training experts that get a planted error


@dataclass
class LoraConfig:
    rank: int = bounded(0)  # 0 trains all weights
    alpha: int = bounded(1)


@dataclass
class ModelConfig:
    policy_name: str = MISSING  # `embedded`, a folder, or a hub name
    checkpoint: str | None = MISSING  # weights to start the policy from: a checkpoint, or a run (its newest one)
    backend: Backend = MISSING  # what loads the policy
    load_in_4bit: bool = MISSING  # both models; their weights are frozen then, so both need LoRA
    fast_inference: bool = MISSING  # sample with vLLM, on a GPU
    embedded: EmbeddedModelConfig = MISSING
    policy_lora: LoraConfig = MISSING


@dataclass
class RewardModelConfig(ModelConfig):
    """The policy's keys, and those of the discriminator; names are the published configuration's."""

    reward_name: str | None = MISSING  # a folder or a hub name; null: the policy's own start
    reward_lora: LoraConfig = MISSING
    # what the discriminator is
    classifier_loss: ClassifierLoss = MISSING
    reward_head: RewardHead = MISSING
    reward_form: RewardForm = MISSING
    reward_granularity: Granularity = MISSING
    dense_rewards: bool | None = MISSING  # alias: true is dense, false is sparse, null leaves reward_granularity
    reward_interval: int = bounded(1)  # tokens between two readings of granularity `interval`
    # how it learns
    reward_learning_rate: float = bounded(above=0)
    reward_weight_decay: float = bounded(0)
    reward_lr_scheduler_type: Schedule = MISSING
    reward_warmup_ratio: float = bounded(0, 1)
    reward_max_grad_norm: float = bounded(above=0)
    reward_warmup_steps: int = bounded(0)  # updates on perturbations alone, before the first policy step
    reward_updates_per_policy_step: int = bounded(0)  # 0 leaves the discriminator as the warm-up left it
    reward_batch_size: int = bounded(1)  # experts an update
    reward_policy_batch_size: int = bounded(1)  # policy samples an update, replayed ones among them
    reward_micro_batch_size: int = bounded(1)  # sequences a forward pass; changes memory, not gradients
    replay_buffer_size: int = bounded(0)  # earlier policy samples that are kept
    replay_fraction: float = bounded(0, 1)  # share of an update's policy samples that is replayed
    disc_label_smoothing: float = bounded(0, 0.999)
    class_balance: bool = MISSING  # experts weigh as much as all negatives together
    reward_lm_coef: float = bounded(0)  # weight of the experts' negative log-likelihood; likelihood head only
    gradient_penalty: float = bounded(0)  # wgan
    num_neg_perturbations_per_expert: int = bounded(0)
    neg_perturb_fns: list[PerturbationKind] = MISSING
    # how it becomes a reward
    disc_temperature: float = bounded(above=0)
    clip_reward_model: bool = MISSING
    reward_lb: float = MISSING
    reward_ub: float = MISSING
    # how the reward becomes an advantage
    advantage_calculation: AdvantageCalculation = MISSING
    advantage_baseline: AdvantageBaseline = MISSING
    advantage_std_floor: float = bounded(above=0)
    normalize_advantages: bool = MISSING  # false leaves rewards centred, not divided by the group's deviation
    dense_gamma: float = bounded(0, 1)
    add_expert_to_policy_optim: bool = MISSING


@dataclass
class TrainingConfig:
    output_dir: str = MISSING
    resume: bool = MISSING  # go on from the run's newest checkpoint
    max_steps: int = bounded(1)
    max_seconds: float | None = bounded(above=0)  # stop after so much wall time; null: no limit
    optim: Optimizer = MISSING  # the policy's; the 8-bit ones need a GPU
    learning_rate: float = bounded(above=0)
    lr_scheduler_type: Schedule = MISSING
    warmup_ratio: float = bounded(0, 1)
    weight_decay: float = bounded(0)
    adam_beta2: float = bounded(0, 0.99999)
    max_grad_norm: float = bounded(above=0)
    gradient_checkpointing: bool = MISSING  # trades time for memory
    per_device_train_batch_size: int = bounded(1)
    gradient_accumulation_steps: int = bounded(1)
    logging_steps: int = bounded(1)
    save_steps: int = bounded(1)
    max_prompt_length: int = bounded(1)  # tokens; a longer prompt is an error, not a silent cut
    max_completion_length: int = bounded(1)  # tokens


@dataclass
class WarmStartConfig:
    """SFT on the annotator's traces before AIRL; only the embedded data has an annotator."""

    enabled: bool = MISSING
    n_traces: int = bounded(1)
    epochs: float = bounded(above=0)
    batch_size: int = bounded(1)
    learning_rate: float = bounded(above=0)


@dataclass
class GuardConfig:
    """Policy updates are skipped while the discriminator's held-out AUROC is at chance."""

    enabled: bool = MISSING
    min_auroc: float = bounded(0, 1)
    smoothing: float = bounded(0, 0.999)  # weight of the past in the running mean of the AUROC


@dataclass
class PolicyTrainingConfig(TrainingConfig):
    """The policy's part of an AIRL step; names are TRL's GRPO names."""

    num_generations: int = bounded(2)
    num_iterations: int = bounded(1)
    temperature: float = bounded(above=0)
    top_p: float = bounded(0.01, 1)
    clip_epsilon: float = bounded(above=0)
    beta: float = bounded(0)  # weight of the KL to the starting policy
    completions_steps: int = bounded(1)  # every so many steps a few samples are written down
    n_completions: int = bounded(0)  # how many of them; 0: none


@dataclass
class IRLTrainConfig:
    algorithm: Algorithm = MISSING
    seed: int = bounded(0)
    dataset: DatasetConfig = MISSING
    model: RewardModelConfig = MISSING
    warm_start: WarmStartConfig = MISSING
    training: PolicyTrainingConfig = MISSING
    guard: GuardConfig = MISSING
    wandb: WandbConfig = MISSING


@dataclass
class SFTTrainConfig:
    algorithm: Algorithm = MISSING
    seed: int = bounded(0)
    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING
    warm_start: WarmStartConfig = MISSING
    training: TrainingConfig = MISSING
    wandb: WandbConfig = MISSING


@dataclass
class VerifierConfig:
    """Weights of what the answer key and the form earn in GRPO; see rewards/verifiable.py."""

    answer_weight: float = bounded(0)
    format_weight: float = bounded(0)


@dataclass
class GRPOTrainConfig:
    algorithm: Algorithm = MISSING
    seed: int = bounded(0)
    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING
    warm_start: WarmStartConfig = MISSING
    training: PolicyTrainingConfig = MISSING
    verifier: VerifierConfig = MISSING
    wandb: WandbConfig = MISSING


TrainConfig = IRLTrainConfig | SFTTrainConfig | GRPOTrainConfig


@dataclass
class SamplingConfig:
    n_samples: int = bounded(1)
    temperature: float = bounded(above=0)
    top_p: float = bounded(0.01, 1)
    batch_size: int = bounded(1)  # sequences generated or scored at once
    load_in_4bit: bool = MISSING
    max_prompt_length: int = bounded(1)
    max_completion_length: int = bounded(1)


@dataclass
class EvalSettings:
    n_problems: int | None = bounded(1)  # test problems; null: all
    n_validation: int = bounded(2)  # further problems, on which the score of a trace is chosen
    ks: list[int] = MISSING
    bootstrap_draws: int = bounded(10)


@dataclass
class EvalConfig:
    """What samples a policy on test problems."""

    seed: int = bounded(0)
    run_dir: str = MISSING  # the run whose data is tested on, and whose newest checkpoint is the policy
    output_dir: str = MISSING
    policy_path: str | None = MISSING  # another policy's folder or hub name
    sampling: SamplingConfig = MISSING
    eval: EvalSettings = MISSING
    wandb: WandbConfig = MISSING


@dataclass
class ScorerConfig:
    """The models that score traces; each null is taken from the run."""

    reward_path: str | None = MISSING  # the reward model: a folder, a run, or a hub name
    reward_kind: RewardKind = MISSING
    step_separator: str | None = MISSING  # prm: text behind each step, at which the model is read
    positive_token: str | None = MISSING  # prm that is a causal language model: the token that calls a step right
    negative_token: str | None = MISSING  # likewise, wrong
    frozen_path: str | None = MISSING  # the same reward model before it learnt anything, as a baseline
    policy_path: str | None = MISSING  # whose log-probability is the other baseline
    load_in_4bit: bool = MISSING


@dataclass
class ScoringSettings:
    traces: str | None = MISSING  # a traces file; null: the run's
    against: str | None = MISSING  # the output folder of another model's evaluation of the same traces; null: none
    on_error: OnError = MISSING  # rows that cannot be used: the first one ends the evaluation, or all are left out
    batch_size: int = bounded(1)
    n_planted: int = bounded(0)  # experts with a planted edit, for error localisation; needs the run's data
    planted_kinds: list[PerturbationKind] = MISSING
    validation_share: float = bounded(0, 0.9)  # of the problems of a file that names no split
    bootstrap_draws: int = bounded(10)
    report_traces: int = bounded(0)  # traces shown in report.html


@dataclass
class IRLEvalConfig:
    """What scores a traces file with a reward model, and measures what the score is worth."""

    seed: int = bounded(0)
    run_dir: str | None = MISSING  # a run folder; null: every path is given below
    output_dir: str = MISSING
    model: ScorerConfig = MISSING
    eval: ScoringSettings = MISSING
    wandb: WandbConfig = MISSING
