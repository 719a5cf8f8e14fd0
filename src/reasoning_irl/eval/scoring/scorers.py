"""Reward models of any kind as scorers: a value for every token of a trace, in the tokens of the model's own tokenizer.

airl      a reward model trained here: the logit at the next token at which the model is read
token     *ForTokenClassification: the logit of a single label, or the log-odds of the positive one of two labels
sequence  *ForSequenceClassification: one score per text (log-odds for two labels). The tokens of a step get the score
          of the trace up to the end of that step, ended like the trace; the last step, and all tokens after it, get
          the score of the whole trace
prm       a process reward model, read at a separator inserted after each step: the probability that the step is right,
          at all its tokens. A token-classification head, a Qwen2ForProcessRewardModel (Zhang et al. 2025, arXiv
          2501.07301), or a causal language model that compares a positive token with a negative one (Wang et al. 2024,
          arXiv 2312.08935)
logprob   *ForCausalLM: log p(y_t | x, y_<t)

The kind of a folder or hub repository is read from its configuration before any weights are loaded. Code that comes
with a repository is never run.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol, assert_never

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForTokenClassification,
)

from reasoning_irl.config.schema import Granularity, RewardHead, RewardKind, ScorerConfig
from reasoning_irl.data.tokens import NO_LIMIT, TokenBatch, TokenSequence, encode_completion
from reasoning_irl.eval.scoring.generation import on_best_device, token_logprobs
from reasoning_irl.metrics.traces import TokenValues, Values
from reasoning_irl.models.batches import Progress, score_by_length
from reasoning_irl.models.loading import base_of, check_complete, is_adapter, load_policy, reading_model, weights
from reasoning_irl.models.reward_model import SPEC_FILE, find_reward_model, load_reward_model, load_spec
from reasoning_irl.text.token_spans import spans_of
from reasoning_irl.utils.errors import ConfigError, DataError, UserError
from reasoning_irl.utils.run_folder import CONFIG_FILE, REWARD_MODEL, newest_checkpoint

# The prompt, for a tokenizer without a chat template.
PLAIN_TEMPLATE = "{{ bos_token or cls_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
ARCHITECTURES = {
    "ForTokenClassification": RewardKind.token,
    "ForProcessRewardModel": RewardKind.prm,
    "ForSequenceClassification": RewardKind.sequence,
    "ForCausalLM": RewardKind.logprob,
    "LMHeadModel": RewardKind.logprob,
}
POSITIVE = ("positive", "pos", "correct", "right", "good", "true", "yes", "+", "1", "label_1")
NEGATIVE = ("negative", "neg", "incorrect", "wrong", "bad", "false", "no", "-", "0", "label_0")


@dataclass(frozen=True)
class Stepped:
    """A trace as a scorer reads it: the texts (T,) of its completion's tokens and the step (T,) of each, from 1."""

    sequence: TokenSequence
    pieces: Sequence[str]
    step_ids: Sequence[int]


class Scorer(Protocol):
    """Returns a value for each token (T,) of each trace; higher is better. All processes share the work."""

    def __call__(self, traces: Sequence[Stepped], batch_size: int, progress: Progress) -> TokenValues: ...


@dataclass(frozen=True)
class ScorerSpec:
    """Where a reward model is and how to read it, known before its weights are loaded."""

    name: str  # the model's own folder, or its hub name
    kind: RewardKind  # never auto
    architecture: RewardKind  # the kind according to its configuration
    settings: ScorerConfig
    window: int | None  # the most tokens that it can read, if its configuration says so
    positive: int = 0  # which of two labels means right
    system_prompt: str = ""  # of the questions that it was trained on

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer. Raises UserError if it cannot encode traces.

        Without a chat template of its own, a prompt is the question and a line break.
        """
        name = str(tokenizer_folder(Path(self.name)) or self.name)
        with reading_model(name):
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {name} has no character offsets: give a model with a fast tokenizer (tokenizer.json)"
            )
        tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token
        if tokenizer.eos_token is None:
            raise UserError(f"the tokenizer of {name} has no end token: set eos_token in its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
        return tokenizer

    def load(self, tokenizer: PreTrainedTokenizerBase) -> Scorer:
        """The model, for traces in the tokens of `tokenizer`. Raises UserError if weights are missing."""
        in_4bit, pad_id = self.settings.load_in_4bit, tokenizer.pad_token_id
        match self.kind:
            case RewardKind.airl:
                ours = on_best_device(load_reward_model(Path(self.name), tokenizer, in_4bit))
                return TokenScorer(ours.rewards, pad_id, ours.device)
            case RewardKind.token:
                model = self._model(AutoModelForTokenClassification)
                return TokenScorer(
                    lambda batch: to_value(token_logits(model, batch), self.positive), pad_id, model.device
                )
            case RewardKind.sequence:
                return SequenceScorer(self._model(AutoModelForSequenceClassification), self.positive, tokenizer)
            case RewardKind.prm:
                return self._load_prm(tokenizer)
            case RewardKind.logprob:
                policy = on_best_device(load_policy(self.name, in_4bit, frozen=True).eval())
                return TokenScorer(lambda batch: token_logprobs(policy, batch), pad_id, policy.device)
            case RewardKind.auto:
                raise ValueError("the kind of a ScorerSpec is never `auto`: find_scorer settles it")
            case _:
                assert_never(self.kind)

    def _load_prm(self, tokenizer: PreTrainedTokenizerBase) -> Scorer:
        settings, positive = self.settings, self.positive
        separator = settings.step_separator or ""
        known_ids(tokenizer, "step_separator", separator)
        match self.architecture:
            case RewardKind.token:
                model = self._model(AutoModelForTokenClassification)
            case RewardKind.prm:
                model = self._model(Qwen2ForProcessRewardModel)
            case RewardKind.logprob:  # a language model that answers in a word
                answers = {"positive_token": settings.positive_token, "negative_token": settings.negative_token}
                rows = [known_ids(tokenizer, key, text or "", n_most=1)[0] for key, text in answers.items()]
                model = self._model(AutoModelForCausalLM)
                keep_rows(model, rows)
            case _:
                raise ValueError(f"a model of kind {self.architecture} is not read after each step")
        return ProcessScorer(model, positive, tokenizer, separator, self.window)

    def _model(self, auto: Any) -> PreTrainedModel:
        """The model with all weights from its files; a missing head would be initialised at random."""
        arguments = weights(self.settings.load_in_4bit, frozen=True)
        with reading_model(self.name):
            model, info = auto.from_pretrained(
                self.name, output_loading_info=True, trust_remote_code=False, **arguments
            )
            check_complete(self.name, info["missing_keys"])
        model.config.use_cache = False
        return on_best_device(model.eval())


@dataclass(frozen=True)
class TokenScorer:
    """A model with a value for each token (B, T) of a batch."""

    rewards: Callable[[TokenBatch], Tensor]
    pad_id: int
    device: torch.device

    def __call__(self, traces: Sequence[Stepped], batch_size: int, progress: Progress) -> TokenValues:
        sequences = [trace.sequence for trace in traces]
        return score_by_length(sequences, self.rewards, self.pad_id, batch_size, progress, self.device, is_shared=True)


@dataclass(frozen=True)
class SequenceScorer:
    """A model with one score per text, read at the end of each step and of the trace."""

    model: PreTrainedModel
    positive: int
    tokenizer: PreTrainedTokenizerBase

    def __call__(self, traces: Sequence[Stepped], batch_size: int, progress: Progress) -> TokenValues:
        ends = [[*step_ends(trace)[:-1], len(trace.step_ids) - 1] for trace in traces]
        prefixes = [self._up_to(trace, end) for trace, own in zip(traces, ends, strict=True) for end in own]
        pad_id = self._pad_id(prefixes)
        scores = score_by_length(
            prefixes, self._scores, pad_id, batch_size, progress, self.model.device, is_shared=True
        )
        rest = (score for (score,) in scores)
        return [
            spread([next(rest) for _ in own], own, len(trace.step_ids)) for trace, own in zip(traces, ends, strict=True)
        ]

    def _up_to(self, trace: Stepped, end: int) -> TokenSequence:
        """The trace up to its token `end`, plus an end token if the trace has one: the model never saw an open text."""
        ids, end_id = trace.sequence.completion_ids, self.tokenizer.eos_token_id
        is_open = ids[-1] == end_id and end < len(ids) - 1
        return TokenSequence(trace.sequence.prompt_ids, (*ids[: end + 1], *([end_id] if is_open else [])))

    def _pad_id(self, prefixes: Sequence[TokenSequence]) -> int:
        """The padding with which a batch gets the same scores as single texts do.

        transformers reads a score at the last token that is not the configuration's padding token.
        """
        text_config = self.model.config.get_text_config()
        if text_config.pad_token_id is None:
            last = {prefix.completion_ids[-1] for prefix in prefixes}
            text_config.pad_token_id = next(i for i in count() if i not in last)
        pad_id: int = text_config.pad_token_id
        return pad_id

    def _scores(self, batch: TokenBatch) -> Tensor:
        """(B, 1) scores of whole sequences."""
        logits = self.model(**joined(batch)[0]).logits.float()  # (B, labels)
        return to_value(logits, self.positive)[:, None]


@dataclass(frozen=True)
class ProcessScorer:
    """A model read at a separator after each step: the probability that the step is right."""

    model: PreTrainedModel
    positive: int
    tokenizer: PreTrainedTokenizerBase
    separator: str
    window: int | None

    def __call__(self, traces: Sequence[Stepped], batch_size: int, progress: Progress) -> TokenValues:
        marked = [self._marked(trace) for trace in traces]
        probabilities = score_by_length(
            [sequence for sequence, _ in marked],
            lambda batch: to_value(token_logits(self.model, batch), self.positive).sigmoid(),
            self.tokenizer.pad_token_id,
            batch_size,
            progress,
            self.model.device,
            is_shared=True,
        )
        return [
            spread([of_tokens[place] for place in places], step_ends(trace), len(trace.step_ids))
            for trace, (_, places), of_tokens in zip(traces, marked, probabilities, strict=True)
        ]

    def _marked(self, trace: Stepped) -> tuple[TokenSequence, list[int]]:
        """The trace up to its last step with a separator after each step, and the token that ends each separator."""
        spans, text = spans_of(trace.pieces), "".join(trace.pieces)
        written, start, marks = "", 0, []
        for end in step_ends(trace):
            # Right after the step's text, not after a line break in its last token.
            until = max(start, len(text[: spans[end][1]].rstrip()))
            written += text[start:until] + self.separator
            marks.append(len(written))
            start = until
        ids, offsets = encode_completion(self.tokenizer, written, NO_LIMIT)
        starts = [start for start, _ in offsets[:-1]]
        if self.window is not None and len(trace.sequence.prompt_ids) + len(starts) > self.window:
            raise DataError(
                f"with model.step_separator after each step, the trace that begins {text[:40]!r} has more tokens than "
                f"the reward model's window of {self.window}: leave it out"
            )
        # The last token that begins before the mark. Tokens that spell one character together share its span.
        return TokenSequence(trace.sequence.prompt_ids, ids[:-1]), [bisect_left(starts, mark) - 1 for mark in marks]


class Qwen2ForProcessRewardModel(Qwen2ForTokenClassification):
    """The head of Qwen's process reward models, which transformers does not include."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, config.num_labels or 2))
        self.post_init()


def load_scorer(name: str, settings: ScorerConfig) -> tuple[Scorer, PreTrainedTokenizerBase]:
    """The scorer of a folder, a run or a hub name, and the tokenizer of the traces that it reads."""
    source = find_scorer(name, settings)
    tokenizer = source.load_tokenizer()
    return source.load(tokenizer), tokenizer


def find_scorer(name: str, settings: ScorerConfig) -> ScorerSpec:
    """The reward model of a folder, a run or a hub name. Raises UserError if the settings ask for another kind."""
    asked, folder = settings.reward_kind, Path(name)
    ours = folder if folder.name == REWARD_MODEL else find_reward_model(folder)
    is_ours = (ours / SPEC_FILE).is_file()
    if asked == RewardKind.airl or (asked == RewardKind.auto and (is_ours or folder.name == REWARD_MODEL)):
        spec = load_spec(ours)
        if settings.step_separator is not None:
            raise ConfigError(f"model.step_separator is for a PRM, and {ours} was trained here with AIRL: leave it out")
        window = _window(_config(str(ours)))
        return ScorerSpec(
            str(ours), RewardKind.airl, RewardKind.token, settings, window, system_prompt=spec.system_prompt
        )
    if is_ours and asked != RewardKind.logprob:
        folder = _plain(ours)
    elif (folder / CONFIG_FILE).is_file():
        folder = newest_checkpoint(folder)  # a policy
    name = str(folder)
    config = _config(name)
    if is_adapter(name):
        native = RewardKind.logprob
    else:
        named = config.architectures or ["no architecture"]
        native = next((kind for end, kind in ARCHITECTURES.items() if named[0].endswith(end)), RewardKind.auto)
        if native == RewardKind.auto:
            raise UserError(f"{name} is a {named[0]}: give a model for token or sequence classification, or causal")
    kind = _kind(name, native, settings)
    positive = 0 if native == RewardKind.logprob else _positive_label(name, config)
    return ScorerSpec(name, kind, native, settings, _window(config), positive)


def tokenizer_folder(reward: Path) -> Path | None:
    """The folder of a reward model's tokenizer: its own, or that of the checkpoint around it."""
    return next((folder for folder in (reward, reward.parent) if (folder / "tokenizer_config.json").is_file()), None)


def known_ids(tokenizer: PreTrainedTokenizerBase, key: str, text: str, n_most: int | None = None) -> list[int]:
    """The ids of the text of `model.KEY`. Raises ConfigError if the tokenizer does not know it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids or tokenizer.unk_token_id in ids:
        raise ConfigError(
            f"model.{key}={text!r} is not in the reward model's vocabulary: give the text that it was trained with"
        )
    if n_most is not None and len(ids) > n_most:
        raise ConfigError(
            f"model.{key}={text!r} is {len(ids)} tokens of the reward model: give a text that is one token"
        )
    return ids


def keep_rows(model: PreTrainedModel, rows: Sequence[int]) -> None:
    """Reduces the output layer of a causal language model to some tokens, so that (B, T, V) is never computed."""
    whole: Any = model.get_output_embeddings()
    part = nn.Linear(whole.in_features, len(rows), bias=whole.bias is not None)
    part.weight = nn.Parameter(whole.weight[rows].detach())
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias[rows].detach())
    model.set_output_embeddings(part)


def joined(batch: TokenBatch) -> tuple[dict[str, Tensor], Tensor]:
    """Model inputs (B, L), padded on the right, and the column of each completion token in them (B, T)."""
    ids, columns = batch.compact()
    lengths = batch.attention_mask.sum(1, keepdim=True)
    mask = torch.arange(ids.size(1), device=ids.device) < lengths  # needed by encoders, which see the padding
    return {"input_ids": ids, "attention_mask": mask.long()}, columns


def token_logits(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Logits (B, T, labels) at the completion's tokens."""
    inputs, columns = joined(batch)
    logits: Tensor = model(**inputs).logits
    return logits.gather(1, columns[..., None].expand(-1, -1, logits.size(-1))).float()


def to_value(logits: Tensor, positive: int) -> Tensor:
    """(..., labels) -> (...): the only logit, or the log-odds of the positive one of two labels."""
    return logits[..., 0] if logits.size(-1) == 1 else logits[..., positive] - logits[..., 1 - positive]


def step_ends(trace: Stepped) -> list[int]:
    """The last token of each step that has tokens; for a trace without steps, the last token of its text."""
    ends = {step: at for at, step in enumerate(trace.step_ids) if step}
    shown = (at for at in reversed(range(len(trace.pieces))) if trace.pieces[at].strip())
    return list(ends.values()) or [next(shown, len(trace.pieces) - 1)]


def spread(values: Values, ends: Sequence[int], n_tokens: int) -> list[float]:
    """(T,) each token gets the value read at the next of `ends`; tokens after the last one get its value."""
    return [values[min(bisect_left(ends, at), len(ends) - 1)] for at in range(n_tokens)]


def _config(name: str) -> PreTrainedConfig:
    with reading_model(name):
        return AutoConfig.from_pretrained(base_of(name), trust_remote_code=False)


def _window(config: PreTrainedConfig) -> int | None:
    text_config = config.get_text_config()
    return int(text_config.max_position_embeddings) if hasattr(text_config, "max_position_embeddings") else None


def _plain(ours: Path) -> Path:
    """The folder of a reward model trained here, if transformers alone reads it correctly."""
    spec = load_spec(ours)
    if spec.head != RewardHead.plain or spec.granularity != Granularity.dense or is_adapter(ours):
        raise ConfigError(
            f"{ours} was trained here with AIRL and is more than a head: set model.reward_kind=airl, or auto"
        )
    return ours


def _kind(name: str, native: RewardKind, settings: ScorerConfig) -> RewardKind:
    """The kind as which a model is read. Raises ConfigError if it cannot be read as the settings ask."""
    asked, separator = settings.reward_kind, settings.step_separator
    kind = asked
    if asked == RewardKind.auto:
        kind = RewardKind.prm if separator is not None else native
    if kind != native and (kind != RewardKind.prm or native == RewardKind.sequence):
        raise ConfigError(f"{name} cannot be read as model.reward_kind={kind}: its kind is {native}")
    if kind == RewardKind.prm and not separator:
        raise ConfigError(
            f"{name} is a PRM, read after each step: set its separator, such as 'model.step_separator=\"<extra_0>\"'"
        )
    has_answers = settings.positive_token is not None
    if kind == RewardKind.prm and has_answers != (native == RewardKind.logprob):
        how = "take away" if has_answers else "give"
        raise ConfigError(
            f"{name} is of kind {native}: {how} model.positive_token and model.negative_token, by which a causal "
            "language model says whether a step is right"
        )
    return kind


def _positive_label(name: str, config: PreTrainedConfig) -> int:
    """The label that means right: of two, by their names, or else the second. Raises UserError for more than two."""
    labels = [str(label).strip().lower() for _, label in sorted((config.id2label or {}).items())]
    if len(labels) > 2:
        raise UserError(
            f"{name} has {len(labels)} labels, and it is not known which one means right: give a model with 1 or 2"
        )
    said = [at for at, label in enumerate(labels) if label in POSITIVE]
    said = said or [1 - at for at, label in enumerate(labels) if label in NEGATIVE]
    return said[0] if len(labels) == 2 and len(said) == 1 else len(labels) - 1
