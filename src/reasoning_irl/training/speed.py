"""How fast a trainer is, and how much GPU memory it takes, in each logged step."""

import time

import torch
from transformers import Trainer


class LogsSpeed(Trainer):
    """Adds the tokens per second since the last logged step and, on a GPU, the peak of the memory in GiB.

    A base after TRL's trainer, whose `log` has then added the number of tokens.
    """

    _last_logged: tuple[float, float] | None = None  # seconds, tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "num_tokens" in logs:
            now, tokens = time.perf_counter(), logs["num_tokens"]
            if self._last_logged is not None:
                seconds, before = self._last_logged
                logs["tokens_per_second"] = (tokens - before) / (now - seconds)
            self._last_logged = now, tokens
            if torch.cuda.is_available():
                logs["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        super().log(logs, start_time)
