"""What a terminal or a log file shows of a training job: one aligned line per logged step."""

import time
from collections.abc import Mapping
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer_callback import TrainerControl
from transformers.training_args import TrainingArguments

from reasoning_irl.utils.log import is_verbose
from reasoning_irl.utils.progress import MIN_SECONDS, elapsed_and_left

HEADER_EVERY = 25  # lines
WIDTH = 9

# By job: heading and logged metric. All metrics are in train_log.jsonl.
WARM_UP = {
    "loss": "discriminator/loss",
    "experts": "discriminator/accuracy_expert",
    "edited": "discriminator/accuracy_perturbed",
}
AIRL = {
    "disc loss": "discriminator/loss",
    "AUROC": "discriminator/heldout_auroc",
    "reward": "policy/reward_mean",
    "accuracy": "monitor/accuracy",
    "length": "policy/completion_length",
    "KL": "policy/kl",
    "loss": "loss",
}
OFFLINE = {
    "loss": "discriminator/loss",
    "experts": "discriminator/accuracy_expert",
    "samples": "discriminator/accuracy_policy",
    "edited": "discriminator/accuracy_perturbed",
    "AUROC": "discriminator/heldout_auroc",
    "pairs": "discriminator/heldout_pairs",
}
GRPO = {
    "loss": "loss",
    "reward": "reward",
    "accuracy": "rewards/answer_reward/mean",
    "format": "rewards/format_reward/mean",
    "length": "completions/mean_length",
    "KL": "kl",
}
SFT = {"loss": "loss", "tokens": "mean_token_accuracy", "grad norm": "grad_norm", "lr": "learning_rate"}


class StepTable:
    """Prints logged steps, at least `min_seconds` apart, and the last one in any case; the header comes again.

    Args:
        columns: heading and metric.
        total: the last step.
        first: the step that the job starts, or goes on, after.
        max_seconds: the time limit, if there is one.
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        total: int,
        first: int = 0,
        max_seconds: float | None = None,
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        self._columns, self._total, self._first, self._max_seconds = columns, total, first, max_seconds
        self._min_seconds = min_seconds
        self._start = time.perf_counter()
        self._shown_at = -min_seconds
        self._n_lines = 0
        self._pending: str | None = None

    def add(self, step: int, logs: Mapping[str, Any]) -> None:
        """Prints the line of a step, or keeps it for `close` if the last line is too recent."""
        seconds = time.perf_counter() - self._start
        self._pending = self._line(step, logs, seconds)
        if seconds - self._shown_at >= self._min_seconds:
            self._shown_at = seconds
            self._print()

    def close(self) -> None:
        """Prints the last line, if it is not printed yet."""
        if self._pending is not None:
            self._print()

    def _print(self) -> None:
        if self._n_lines % HEADER_EVERY == 0:
            print(self._row("step", *self._columns, "time", "left"), flush=True)
        print(self._pending, flush=True)
        self._n_lines += 1
        self._pending = None

    def _line(self, step: int, logs: Mapping[str, Any], seconds: float) -> str:
        share = (step - self._first) / max(1, self._total - self._first)
        if self._max_seconds is not None:
            share = max(share, min(1.0, seconds / self._max_seconds))
        cells = [_cell(logs.get(metric)) for metric in self._columns.values()]
        return self._row(f"{step}/{self._total}", *cells, *elapsed_and_left(seconds, share))

    def _row(self, step: str, *cells: str) -> str:
        return " ".join([step.rjust(2 * len(str(self._total)) + 1), *(f"{cell:>{WIDTH}}" for cell in cells)])


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


class StepLines(TrainerCallback):
    """Shows a trainer's logged steps in a StepTable."""

    def __init__(self, columns: Mapping[str, str], max_seconds: float | None = None) -> None:
        self._columns, self._max_seconds = columns, max_seconds

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        self._table = StepTable(self._columns, state.max_steps, state.global_step, self._max_seconds)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 (the library's signature)
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "train_runtime" not in logs:  # the library's last row has none of the metrics
            self._table.add(state.global_step, logs)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._table.close()


def show_steps(trainer: Trainer, columns: Mapping[str, str], max_seconds: float | None = None) -> None:
    """Replaces the library's bar and dictionaries by lines, unless `is_verbose`."""
    if is_verbose():
        return
    for shown_by_library in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(shown_by_library)
    trainer.add_callback(StepLines(columns, max_seconds))
