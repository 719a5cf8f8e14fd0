"""The files and models of one evaluation of a reward, and the traces that every method scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import IRLEvalConfig
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence
from reasoning_irl.eval.scoring.scorers import ScorerSpec, Stepped, find_scorer
from reasoning_irl.eval.traces.labelled_errors import SteppedTrace
from reasoning_irl.eval.traces.other_model import scored_traces
from reasoning_irl.eval.traces.trace_file import Trace
from reasoning_irl.metrics.summary import read_metrics
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils.errors import ConfigError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import (
    CONFIG_FILE,
    INITIAL_REWARD_MODEL,
    METRICS_FILE,
    REWARD_MODEL,
    TRACES_FILE,
    chosen_checkpoint,
    newest_checkpoint,
    policy_of,
)


@dataclass(frozen=True)
class Inputs:
    """What an evaluation reads. Without one of the last four, the methods that need it are not scored."""

    traces: Path
    reward: ScorerSpec
    frozen: Path | None
    policy: str | None
    sft: str | None  # a policy after SFT on the same experts
    against: Path | None  # the traces that another reward model scored

    def window(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """The most tokens that the reward model reads, according to its configuration."""
        return min(self.reward.window or NO_LIMIT, tokenizer.model_max_length)


@dataclass(frozen=True)
class ScoringJob:
    """Everything that a method may read, and the N traces that it scores."""

    config: IRLEvalConfig
    inputs: Inputs
    tokenizer: PreTrainedTokenizerBase  # the reward model's; all sequences are in its tokens
    traces: Sequence[Trace]  # the first of the N
    planted: Sequence[SteppedTrace]  # the rest: planted errors, then their intact experts

    @cached_property
    def sequences(self) -> list[TokenSequence]:  # (N,)
        return [trace.sequence for trace in self.traces] + [trace.sequence for trace in self.planted]

    @cached_property
    def stepped(self) -> list[Stepped]:  # (N,)
        own = [Stepped(trace.sequence, trace.pieces, trace.step_ids) for trace in self.traces]
        return own + [
            Stepped(trace.sequence, token_pieces(self.tokenizer, trace.sequence.completion_ids), trace.step_ids)
            for trace in self.planted
        ]


def _warn_of_other_policy(run_dir: Path, checkpoint: Path) -> None:
    """Warns if the run's traces were sampled from another of its checkpoints."""
    sampled = Path(str(read_metrics(run_dir / METRICS_FILE).get("policy")))
    is_checkpoint = sampled.parent.resolve() == run_dir.resolve() and sampled.name.startswith("checkpoint-")
    if is_checkpoint and sampled.name != checkpoint.name:
        logger.warning(
            "the traces of %s are of %s, and are scored with %s: give the same checkpoint=NAME to both evaluations",
            run_dir,
            sampled.name,
            checkpoint.name,
        )


def find_inputs(config: IRLEvalConfig) -> Inputs:
    """The paths of the config, with each null taken from the run. Raises UserError if one is missing."""
    model = config.model
    run_dir = Path(config.run_dir) if config.run_dir else None
    if run_dir is None:
        for key, value in (("model.reward_path", model.reward_path), ("eval.traces", config.eval.traces)):
            if not value:
                raise ConfigError(f"without run_dir there must be {key}: give both, or set run_dir=FOLDER")
    traces = Path(config.eval.traces) if config.eval.traces else Path(run_dir or ".") / TRACES_FILE
    is_needed = run_dir is not None and not (model.reward_path and model.policy_path)
    checkpoint = chosen_checkpoint(run_dir, config.checkpoint) if run_dir and is_needed else None
    reward = model.reward_path or str((checkpoint or Path()) / REWARD_MODEL)
    frozen, policy = Path(model.frozen_path) if model.frozen_path else None, model.policy_path
    if run_dir is not None:
        initial = run_dir / INITIAL_REWARD_MODEL
        frozen = frozen or (initial if initial.is_dir() else None)
        policy = policy or (policy_of(checkpoint) if checkpoint else None)
        if checkpoint and not config.eval.traces:
            _warn_of_other_policy(run_dir, checkpoint)
    against = scored_traces(config.eval.against) if config.eval.against else None
    sft = model.sft_path
    if sft is not None and (Path(sft) / CONFIG_FILE).is_file():
        sft = str(newest_checkpoint(Path(sft)))
    return Inputs(traces, find_scorer(reward, model), frozen, policy, sft, against)
