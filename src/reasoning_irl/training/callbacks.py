"""Trainer callbacks: a local log with one JSON line per logged step, a time limit, SIGTERM."""

import json
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reasoning_irl.utils.log import logger
from reasoning_irl.utils.processes import from_main, gather


def append_step(path: Path, step: int, seconds: float, logs: Mapping[str, Any]) -> None:
    """Appends the line of one logged step to a file, without values that are not finite, which JSON does not have."""
    finite = {name: value for name, value in logs.items() if not isinstance(value, float) or math.isfinite(value)}
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **finite}) + "\n")


def seconds_before(log: Path) -> float:
    """The seconds that a run had taken by the last row of its log, as far as its steps were kept; 0 without one."""
    rows = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return float(json.loads(rows[-1])["seconds"]) if rows else 0.0


class JsonlLog(TrainerCallback):
    """Appends one line per logged step to a file: `{"step": ..., "seconds": ..., metric: value}`.

    The seconds of a resumed run go on from the last row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.perf_counter() - seconds_before(path)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 (the library's signature)
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "train_runtime" not in logs:  # the library's last row is about this process only
            append_step(self._path, state.global_step, time.perf_counter() - self._start, logs)


class TimeLimit(TrainerCallback):
    """Ends training, with a checkpoint, at the end of the first step after this many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start = time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **_: Any,
    ) -> None:
        if from_main(time.perf_counter() - self._start >= self._seconds):
            control.should_save = control.should_training_stop = True


class StopOnSignal(TrainerCallback):
    """Within this context, SIGTERM ends training after the current step, with a checkpoint.

    Slurm sends it before it takes a node away; the run goes on with training.resume=true. `exit_if_asked`, called when
    all is closed, then ends the process with exit code 143.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> "StopOnSignal":
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _ask(self, *_: Any) -> None:
        logger.warning("SIGTERM: training ends after this step, with a checkpoint")
        self.is_asked = True

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **_: Any,
    ) -> None:
        # All processes end after the same step, whichever of them have been asked by now.
        self.is_asked = any(gather(self.is_asked))
        if self.is_asked:
            control.should_save = control.should_training_stop = True

    def exit_if_asked(self) -> None:
        if self.is_asked:
            raise SystemExit(128 + signal.SIGTERM)
