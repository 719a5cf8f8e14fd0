"""The reward model: a transformer with a scalar head on every token, optionally combined with its own likelihood.

plain       f_t = w . h_t                                 what AutoModelForTokenClassification computes
likelihood  f_t = w . h_t + a * log p(y_t | y_<t) + b     p is the reward model's own next-token distribution

The likelihood head starts from what the model already knows about plausible reasoning (w = 0, a = 1); a plain head on
a small model starts from scratch and was observed to stay at chance. At granularities coarser than `dense`, a segment's
likelihood is the mean over its tokens; see models/granularity.py.

A saved folder can be loaded with `AutoModelForTokenClassification.from_pretrained` (num_labels 1); the likelihood head
adds the file `likelihood_head.safetensors` with a, b and, if it is not tied to the embeddings, the output matrix.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, assert_never

import torch
from peft import (
    AutoPeftModelForTokenClassification,
    PeftConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasoning_irl.config.schema import DiscriminatorLogit, Dtype, Granularity, LoraConfig, RewardHead
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import (
    NO_LIMIT,
    TokenBatch,
    TokenSequence,
    collate,
    encode_completion,
    encode_prompt,
)
from reasoning_irl.metrics.calibration import Platt
from reasoning_irl.metrics.colours import coloured
from reasoning_irl.metrics.reading import Reading, is_of
from reasoning_irl.metrics.summary import read_metrics
from reasoning_irl.models.batches import score_by_length
from reasoning_irl.models.frozen_layers import FrozenLayers
from reasoning_irl.models.granularity import back_fill, ends_step, read_mask, segment_mean, step_kinds
from reasoning_irl.models.loading import (
    base_of,
    check_complete,
    compute_dtype,
    is_adapter,
    load_tokenizer,
    local_folder,
    reading_model,
    trained_in_float32,
    weights,
)
from reasoning_irl.models.logprobs import chosen_logps
from reasoning_irl.text.token_spans import pieces_at, spans_of, step_ids
from reasoning_irl.text.trace import Span, step_spans
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.reading import read_json
from reasoning_irl.utils.run_folder import CONFIG_FILE, METRICS_FILE, REWARD_MODEL, newest_checkpoint

LIKELIHOOD_FILE = "likelihood_head.safetensors"
SPEC_FILE = "reward_spec.json"
# The scalar head starts at zero next to the likelihood. On its own it starts small and random, because at zero it would
# pass no gradient to the backbone.
SCORE_STD = {RewardHead.plain: 0.02, RewardHead.likelihood: 0.0}


class LikelihoodHead(nn.Module):
    """a * log p(y_t | y_<t) + b with learnt a and b; the language model's output matrix is not trained by this head."""

    _frozen_matrix: Tensor | None

    def __init__(self, output_matrix: nn.Parameter, tied: bool, scale: float = 1.0, bias: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
        self.tied = tied
        # Not a parameter of this module: a tied matrix already belongs to the backbone, and an untied one is frozen.
        self._tied_matrix = [output_matrix] if tied else []
        self.register_buffer("_frozen_matrix", None if tied else output_matrix.detach(), persistent=False)

    @property
    def output_matrix(self) -> Tensor:  # (V, H)
        return self._tied_matrix[0] if self._frozen_matrix is None else self._frozen_matrix

    def log_likelihood(self, hidden_before: Tensor, batch: TokenBatch) -> Tensor:
        """(B, T) log p(y_t | y_<t) from the hidden states (B, T, H) before each token; 0 on padding."""
        mask = batch.completion_mask.bool()
        found = chosen_logps(hidden_before[mask], self.output_matrix, batch.completion_ids[mask])
        return found.new_zeros(mask.shape).masked_scatter(mask, found)

    def log_probs(self, hidden_before: Tensor) -> Tensor:
        """(B, T, V) log-probabilities of the token after each position, from the hidden state (B, T, H) there."""
        logits = hidden_before @ self.output_matrix.to(hidden_before.dtype).T
        return torch.log_softmax(logits.float(), dim=-1)


@dataclass(frozen=True)
class RewardSpec:
    """How a reward model is read; saved next to its weights."""

    head: RewardHead
    granularity: Granularity
    interval: int
    system_prompt: str = ""  # of the questions it was trained on
    logit: DiscriminatorLogit = DiscriminatorLogit.token  # what its discriminator classified
    dtype: Dtype = Dtype.auto  # what its layers compute in
    # How an evaluation reads a trace's score. None in a checkpoint, which is not changed: see `evaluated_reading`.
    reading: Reading | None = None


@dataclass(frozen=True)
class Scored:
    """The rewards of one completion; `tokens` join to its text, and the last is the end token's empty text."""

    tokens: list[str]  # (T,)
    offsets: list[Span]  # (T,) characters of each token
    rewards: list[float]  # (T,)
    steps: list[str]
    step_scores: list[float]  # mean reward of each step's tokens
    total: float  # the score of the whole completion
    # How `total` is read from the tokens' rewards: as the evaluation of this model chose on validation. Without one, it
    # is the mean over tokens or, if the logit is additive, the sum.
    aggregation: str

    def _repr_html_(self) -> str:
        """In a notebook, the trace coloured by its tokens' rewards."""
        return coloured(self.tokens, self.rewards)


class RewardModel(nn.Module):
    """Scores every completion token; see the module docstring for the two heads.

    >>> model = RewardModel.from_run("outputs/quickstart")
    >>> model.score("Tom has 3 apples. Tom finds 2 more. How many ...", "<think>\\n3 + 2 = 5\\n</think>...").step_scores
    """

    kinds: Tensor  # (V,) which tokens end a step (see models/granularity.py); only used at granularity `step`

    def __init__(
        self,
        backbone: PreTrainedModel,
        likelihood: LikelihoodHead | None,
        spec: RewardSpec,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__()
        self.backbone = backbone  # token classification with one label, or a PEFT model around it
        self.likelihood = likelihood
        self.spec = spec
        self.tokenizer = tokenizer
        self._frozen: FrozenLayers | None = None
        self._is_checkpointed = False
        self.register_buffer("kinds", _step_kinds(tokenizer), persistent=False)

    @classmethod
    def from_run(cls, name: str | Path, in_4bit: bool = False) -> "RewardModel":
        """Loads the reward model of a run folder (its newest checkpoint), a checkpoint, or a reward model folder.

        A name that is no folder is one on the hub. Raises UserError if there is no reward model of this name.
        """
        folder = find_reward_model(local_folder(name))
        model = load_reward_model(folder, in_4bit=in_4bit)
        if model.spec.reading is None:
            model.spec = replace(model.spec, reading=evaluated_reading(folder))
        return model

    def score(self, question: str, completion: str) -> Scored:
        """Scores one finished completion; see `score_batch`."""
        return self.score_batch([question], [completion])[0]

    def score_batch(self, questions: Sequence[str], completions: Sequence[str], batch_size: int = 16) -> list[Scored]:
        """Scores N finished completions, each of its own question, in their order.

        The end token is scored with each, so that one without text has that token alone. Raises DataError if something
        else than text is given, or unequal numbers of questions and completions.
        """
        _check_texts(questions, completions)
        prompts = {
            question: encode_prompt(self.tokenizer, make_prompt(question, self.spec.system_prompt))
            for question in dict.fromkeys(questions)
        }
        encoded = [encode_completion(self.tokenizer, completion, NO_LIMIT) for completion in completions]
        pairs = zip(questions, encoded, strict=True)
        sequences = [TokenSequence(prompts[question], ids) for question, (ids, _) in pairs]
        pad_id = self.tokenizer.pad_token_id
        rewards = score_by_length(sequences, self.rewards, pad_id, batch_size, iter, self.device)
        rows = zip(completions, encoded, rewards, strict=True)
        return [self._scored(completion, spans, of_tokens.tolist()) for completion, (_, spans), of_tokens in rows]

    def _scored(self, completion: str, spans: Sequence[Span], rewards: list[float]) -> Scored:
        tokens = pieces_at(completion, spans)
        offsets, steps = spans_of(tokens), step_spans(completion)
        of_step = step_ids(completion, offsets, steps)
        grouped = [[r for r, s in zip(rewards, of_step, strict=True) if s == n] for n in range(1, len(steps) + 1)]
        return Scored(
            tokens,
            offsets,
            rewards,
            [completion[start:end] for start, end in steps],
            [sum(group) / len(group) if group else float("nan") for group in grouped],
            self._reading.score(rewards, of_step),
            self._reading.aggregation,
        )

    @property
    def _reading(self) -> Reading:
        how = "sum" if self.spec.logit == DiscriminatorLogit.additive else "mean"
        return self.spec.reading or Reading(how, "default: not evaluated")

    @property
    def device(self) -> torch.device:
        return self.kinds.device

    @property
    def _classifier(self) -> Any:
        """The token classifier, without the PEFT model around it: its `base_model` is the decoder, `score` the head."""
        return self.backbone.get_base_model() if isinstance(self.backbone, PeftModel) else self.backbone

    def freeze_layers(self, n: int) -> None:
        """Freezes the embeddings and the first n layers, and keeps their outputs for every sequence it has seen."""
        self._frozen = FrozenLayers(self._classifier.base_model, n)

    def checkpoint_layers(self) -> None:
        """From now on, the backward pass computes each layer's activations again instead of keeping them."""
        self._classifier.gradient_checkpointing_enable({"use_reentrant": False})
        for module in self._classifier.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                # Unsloth replaces the function in the library for its own models, which are loaded later.
                assert module._gradient_checkpointing_func.func.__module__ == "torch.utils.checkpoint"
        self._is_checkpointed = True

    def read_mask(self, batch: TokenBatch) -> Tensor:
        """(B, T) mask of the tokens at which this model's reward is read and its loss is computed."""
        return read_mask(
            batch.completion_mask,
            self.spec.granularity,
            self.spec.interval,
            ends_step(self.kinds[batch.completion_ids]),
        )

    def forward(self, batch: TokenBatch) -> Tensor:
        """(B, T) logits, high where the trace looks like an expert's; only meaningful on the read mask."""
        return self.logits_and_likelihood(batch)[0]

    def logits_and_likelihood(self, batch: TokenBatch) -> tuple[Tensor, Tensor | None]:
        """(B, T) logits and, with the likelihood head, (B, T) log p(y_t | y_<t)."""
        # Joined sequences need less padding, and no mask: causal attention never sees padding on the right.
        ids, columns = batch.compact()
        log_likelihood = None
        with self._autocast():
            inputs = {"input_ids": ids} if self._frozen is None else {"inputs_embeds": self._frozen.outputs(batch)}
            with nullcontext() if self._frozen is None else self._frozen.skipped():
                hidden = self._hidden(**inputs)
            if self.likelihood is not None:
                before = hidden.gather(1, (columns - 1)[..., None].expand(-1, -1, hidden.size(-1)))
                log_likelihood = self.likelihood.log_likelihood(before, batch)
        f = self._scalars(hidden).gather(1, columns)
        return (f if log_likelihood is None else self._join(batch, f, log_likelihood)), log_likelihood

    def rewards(self, batch: TokenBatch) -> Tensor:
        """(B, T) a reward for every token: the logit at the next token that is read; 0 on padding."""
        return self.at_every_token(self(batch), batch)

    def at_every_token(self, f: Tensor, batch: TokenBatch) -> Tensor:
        """(B, T) rewards from f (B, T): back-filled from the tokens that are read or, if additive, each token's own."""
        match self.spec.logit:
            case DiscriminatorLogit.token:
                return back_fill(f, self.read_mask(batch))
            case DiscriminatorLogit.additive:
                return f * batch.completion_mask
            case _:
                assert_never(self.spec.logit)

    def prefix_logits(self, f: Tensor, batch: TokenBatch) -> Tensor:
        """(B, T) the logit by which the prefix that ends at each token is classified, from f (B, T)."""
        match self.spec.logit:
            case DiscriminatorLogit.token:
                return f
            case DiscriminatorLogit.additive:
                return (f * batch.completion_mask).cumsum(1)
            case _:
                assert_never(self.spec.logit)

    def over_segments(self, values: Tensor, batch: TokenBatch) -> Tensor:
        """(B, T) per-token values as f reads them: means over the segments that one logit stands for, if any."""
        if self.spec.logit == DiscriminatorLogit.additive or self.spec.granularity == Granularity.dense:
            return values
        return segment_mean(values, self.read_mask(batch), batch.completion_mask)

    @torch.no_grad()
    def centre(self, sequences: Sequence[TokenSequence], batch_size: int) -> None:
        """Sets the bias so that the mean f of these sequences' tokens is zero; without sequences, to zero.

        The sum over a prefix would otherwise start far from zero, and every trace on one side of the discriminator.
        """
        assert self.likelihood is not None
        self.likelihood.bias.zero_()
        total, count = 0.0, 0
        for start in range(0, len(sequences), batch_size):
            batch = collate(sequences[start : start + batch_size], self.tokenizer.pad_token_id, self.device)
            total += float((self(batch) * batch.completion_mask).sum())
            count += int(batch.completion_mask.sum())
        self.likelihood.bias.fill_(-total / max(count, 1))

    def embed(self, batch: TokenBatch) -> Tensor:  # (B, P + T, H)
        return self.backbone.get_input_embeddings()(batch.input_ids)

    def forward_embeddings(self, embeddings: Tensor, batch: TokenBatch, others: Tensor, share: Tensor) -> Tensor:
        """(B, T) logits at embeddings interpolated between `batch` and another batch, for the gradient penalty.

        The likelihood is interpolated the same way: `share` (B, 1) from the batch's tokens, the rest from `others`
        (B, T).
        """
        width = batch.completion_ids.size(1)
        with self._autocast():
            hidden = self._hidden(inputs_embeds=embeddings, attention_mask=batch.attention_mask)
        f = self._scalars(hidden[:, -width:])
        if self.likelihood is None:
            return f
        log_probs = self.likelihood.log_probs(hidden[:, -width - 1 : -1])
        likelihood = share * _pick(log_probs, batch.completion_ids) + (1 - share) * _pick(log_probs, others)
        return self._join(batch, f, likelihood)

    def _autocast(self) -> torch.autocast:
        """What the layers compute in; trained weights and the scalar head are float32 in any case."""
        is_bfloat16 = compute_dtype(self.spec.dtype, self.device) == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16)

    def _hidden(self, **inputs: Tensor) -> Tensor:
        """(B, L, H) outputs of the decoder."""
        decoder = self._classifier.base_model
        # The library checkpoints layers in training mode only. Nothing else depends on the mode: there is no dropout.
        decoder.train(self._is_checkpointed and torch.is_grad_enabled())
        hidden: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
        return hidden

    def _scalars(self, hidden: Tensor) -> Tensor:
        """(B, L) outputs of the scalar head, in float32: in bfloat16 a logit has two to three digits."""
        scalars: Tensor = self._classifier.score(hidden.float())[..., 0]
        return scalars

    def _join(self, batch: TokenBatch, scalar: Tensor, log_likelihood: Tensor) -> Tensor:
        assert self.likelihood is not None
        return scalar + self.likelihood.scale * self.over_segments(log_likelihood, batch) + self.likelihood.bias

    def save(self, folder: Path) -> None:
        """Saves the model for `load_reward_model`; of a PEFT backbone, only the adapter and the score head."""
        self.backbone.save_pretrained(folder)
        (folder / SPEC_FILE).write_text(json.dumps(asdict(self.spec)) + "\n")
        if self.likelihood is not None:
            tensors = {"scale": self.likelihood.scale.detach(), "bias": self.likelihood.bias.detach()}
            if not self.likelihood.tied:
                tensors["output_matrix"] = self.likelihood.output_matrix.contiguous()
            save_file(tensors, folder / LIKELIHOOD_FILE)


def _check_texts(questions: Sequence[str], completions: Sequence[str]) -> None:
    for name, texts in (("questions", questions), ("completions", completions)):
        if isinstance(texts, str):
            raise DataError(f"{name} is one text: give a list of texts")
        for at, text in enumerate(texts):
            if not isinstance(text, str):
                kind = "None" if text is None else f"a {type(text).__name__}"
                raise DataError(f"{name}[{at}] is {kind}: give its text")
    if len(questions) != len(completions):
        raise DataError(f"{len(questions)} questions for {len(completions)} completions: give a question for each")


def _pick(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids[..., None])[..., 0]


def has_likelihood(head: RewardHead) -> bool:
    match head:
        case RewardHead.plain:
            return False
        case RewardHead.likelihood:
            return True
        case _:
            assert_never(head)


def build_reward_model(
    name: str,
    spec: RewardSpec,
    tokenizer: PreTrainedTokenizerBase,
    in_4bit: bool = False,
    frozen: bool = False,
    n_layers: int | None = None,
) -> RewardModel:
    """Builds a new reward model from a causal language model's weights; `frozen` weights get an adapter later.

    From an adapter folder, the backbone is its base model with that adapter, trainable. With `n_layers`, only so many
    layers are kept, from the first one. Raises UserError if the model has fewer, or cannot be loaded.
    """
    base = base_of(name)
    with reading_model(name):
        config = AutoConfig.from_pretrained(base, num_labels=1, trust_remote_code=False)
        if n_layers is not None:
            _keep_layers(config, n_layers, name)
        backbone, info = AutoModelForTokenClassification.from_pretrained(
            base,
            config=config,
            output_loading_info=True,
            trust_remote_code=False,
            **weights(in_4bit, frozen, spec.dtype),
        )
        check_complete(name, (key for key in info["missing_keys"] if not key.startswith("score.")))
    nn.init.normal_(backbone.score.weight, std=SCORE_STD[spec.head])
    if backbone.score.bias is not None:
        nn.init.zeros_(backbone.score.bias)
    likelihood = _likelihood_head(backbone, base) if has_likelihood(spec.head) else None
    if is_adapter(name):
        backbone = _with_adapter(backbone, name)
    _without_dropout(backbone)
    return RewardModel(backbone, likelihood, spec, tokenizer)


def _with_adapter(backbone: PreTrainedModel, folder: str) -> PeftModel:
    """The backbone with a language model's adapter, to be trained further; the score head is saved with it."""
    with reading_model(folder):
        adapter = PeftConfig.from_pretrained(folder)
        adapter.task_type, adapter.inference_mode = TaskType.TOKEN_CLS, False
        adapted: Any = get_peft_model(backbone, adapter)
        # The language model has no score head: the new one stays as it is.
        set_peft_model_state_dict(adapted, get_peft_model_state_dict(adapted) | load_peft_weights(folder))
    return adapted


def load_reward_model(
    folder: Path, tokenizer: PreTrainedTokenizerBase | None = None, in_4bit: bool = False
) -> RewardModel:
    """Loads a saved reward model to score or to train further; by default with the tokenizer saved next to it.

    Raises UserError if the folder is not a reward model.
    """
    spec = load_spec(folder)
    tokenizer = tokenizer or load_tokenizer(str(folder))
    with reading_model(folder):
        backbone = _saved_backbone(folder, spec, in_4bit)
        likelihood = _saved_likelihood(folder, backbone) if has_likelihood(spec.head) else None
    _without_dropout(backbone)
    return RewardModel(backbone, likelihood, spec, tokenizer).eval()


def _saved_backbone(folder: Path, spec: RewardSpec, in_4bit: bool) -> Any:
    arguments: dict[str, Any] = {"num_labels": 1, "trust_remote_code": False}
    if is_adapter(folder):
        # Trainable, so that a resumed run can continue training.
        arguments |= weights(in_4bit, True, spec.dtype)
        adapted = AutoPeftModelForTokenClassification.from_pretrained(folder, is_trainable=True, **arguments)
        trained_in_float32(adapted)
        return adapted
    backbone, info = AutoModelForTokenClassification.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, **arguments
    )
    check_complete(folder, info["missing_keys"])
    return backbone


def _saved_likelihood(folder: Path, backbone: Any) -> LikelihoodHead:
    tensors = load_file(folder / LIKELIHOOD_FILE)
    embeddings = backbone.get_input_embeddings().weight
    tied = "output_matrix" not in tensors
    matrix = embeddings if tied else nn.Parameter(tensors["output_matrix"])
    if matrix.shape != embeddings.shape:
        raise UserError(
            f"{folder / LIKELIHOOD_FILE} has an output matrix of shape {tuple(matrix.shape)} for a model of "
            f"{tuple(embeddings.shape)}: give the folder as it was saved"
        )
    return LikelihoodHead(matrix, tied, tensors["scale"].item(), tensors["bias"].item())


def load_trained(model: RewardModel, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Sets the trained weights of a reward model, in place, to those that it saved in a folder."""
    if isinstance(model.backbone, PeftModel):
        set_peft_model_state_dict(model.backbone, load_peft_weights(str(folder), device="cpu"))
        saved = _saved_likelihood(folder, model.backbone) if model.likelihood is not None else None
    else:
        whole = load_reward_model(folder, tokenizer)
        model.backbone.load_state_dict(whole.backbone.state_dict())
        saved = whole.likelihood
    if model.likelihood is not None and saved is not None:
        with torch.no_grad():
            model.likelihood.scale.copy_(saved.scale)
            model.likelihood.bias.copy_(saved.bias)


def load_spec(folder: Path) -> RewardSpec:
    """Loads how a saved reward model is read. Raises UserError if the folder is not a reward model."""
    path = folder / SPEC_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} is not a reward model (no {SPEC_FILE}): use the reward_model folder of an AIRL checkpoint"
        )
    remedy = "use the folder as training saved it"
    fields = read_json(path, remedy)
    try:
        # Older ones lack `logit` and `dtype`.
        spec = RewardSpec(**{**fields, **{name: kind(fields[name]) for name, kind in _ENUMS.items() if name in fields}})
        spec = replace(spec, reading=_reading_of(fields.get("reading")))
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # other keys or values, or no object at all
        raise UserError(f"{path} does not say how the model is read ({error}): {remedy}") from error
    if not isinstance(spec.interval, int) or spec.interval < 1 or not isinstance(spec.system_prompt, str):
        raise UserError(f"{path} has another kind of value as its interval or system_prompt: {remedy}")
    return spec


_ENUMS: dict[str, type[StrEnum]] = {
    "head": RewardHead,
    "granularity": Granularity,
    "logit": DiscriminatorLogit,
    "dtype": Dtype,
}


def _reading_of(fields: dict[str, Any] | None) -> Reading | None:
    if fields is None:
        return None
    return Reading(**{**fields, "of_step": Platt(**fields["of_step"]) if fields["of_step"] else None})


def evaluated_reading(folder: Path) -> Reading | None:
    """How the evaluation in its run's folder read the reward model of a checkpoint; None without one."""
    run = folder.parent.parent
    metrics = read_metrics(run / METRICS_FILE)
    return Reading.from_metrics(metrics, "reward") if is_of(metrics, run, folder) else None


def _keep_layers(config: PretrainedConfig, n: int, name: str) -> None:
    if n > config.num_hidden_layers:
        raise UserError(f"model.reward_layers={n}: {name} has {config.num_hidden_layers} layers; keep fewer")
    config.num_hidden_layers = n
    if config.to_dict().get("layer_types"):  # the kind of attention of each layer, in families that have several
        config.layer_types = config.layer_types[:n]


def check_continued(folder: Path, spec: RewardSpec, lora: LoraConfig, n_layers: int | None) -> None:
    """Raises UserError if a trained reward model would be read or adapted in another way than it was.

    Warns if it was trained with another system prompt.
    """
    known = load_spec(folder)
    keys = {"head": "reward_head", "granularity": "reward_granularity", "logit": "discriminator_logit"}
    if spec.granularity == Granularity.interval:
        keys["interval"] = "reward_interval"
    for name, key in keys.items():
        if getattr(known, name) != getattr(spec, name):
            raise UserError(
                f"{folder} was trained with model.{key}={getattr(known, name)}: set it so, or start from another model"
            )
    with reading_model(folder):
        adapter: Any = PeftConfig.from_pretrained(str(folder)) if is_adapter(folder) else None
    rank = 0 if adapter is None else adapter.r
    if rank != lora.rank:
        raise UserError(f"{folder} has an adapter of rank {rank} (0: none): set model.reward_lora.rank={rank}")
    if n_layers is not None:
        raise UserError(f"{folder} keeps the layers that it has: set model.reward_layers=null")
    if known.system_prompt != spec.system_prompt:
        logger.warning("%s was trained with another system prompt: %r", folder, known.system_prompt)


def trained_reward(name: str) -> Path | None:
    """The reward model folder if `name` is one, or a run or a checkpoint with one; else None."""
    folder = find_reward_model(Path(name))
    return folder if (folder / SPEC_FILE).is_file() else None


def find_reward_model(folder: Path) -> Path:
    """The reward model folder of a run or of a checkpoint, or the folder itself."""
    if (folder / CONFIG_FILE).is_file() and not (folder / SPEC_FILE).is_file():
        folder = newest_checkpoint(folder)
    return folder if (folder / SPEC_FILE).is_file() else folder / REWARD_MODEL


def _step_kinds(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    return step_kinds(len(tokenizer), lambda token: str(tokenizer.decode([token])))


def _likelihood_head(backbone: PreTrainedModel, name: str) -> LikelihoodHead:
    if backbone.config.tie_word_embeddings:
        embeddings: Any = backbone.get_input_embeddings().weight
        return LikelihoodHead(embeddings, tied=True)
    with reading_model(name):
        causal = AutoModelForCausalLM.from_pretrained(name, dtype=backbone.dtype, trust_remote_code=False)
    matrix: Any = causal.get_output_embeddings().weight
    return LikelihoodHead(matrix, tied=False)


def _without_dropout(backbone: PreTrainedModel) -> None:
    """Disables dropout: scores must be the same in training and afterwards, and for every micro-batch size."""
    module: Any
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
