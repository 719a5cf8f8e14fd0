"""Trainer callbacks: a local log with one JSON line per logged step, and a time limit."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def append_step(path: Path, step: int, seconds: float, logs: Mapping[str, Any]) -> None:
    """Appends the line of one logged step to a file."""
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **logs}) + "\n")


class JsonlLog(TrainerCallback):
    """Appends one line per logged step to a file: `{"step": ..., "seconds": ..., metric: value}`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 (the library's signature)
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        append_step(self._path, state.global_step, time.perf_counter() - self._start, logs or {})


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
        if time.perf_counter() - self._start >= self._seconds:
            control.should_save = control.should_training_stop = True
