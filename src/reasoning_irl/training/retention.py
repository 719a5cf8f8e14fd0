"""Which checkpoints a run keeps, and which of them is its best."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reasoning_irl.config.schema import RunConfig
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import (
    TRAIN_LOG,
    best_checkpoint,
    find_checkpoint,
    publish_checkpoint,
    remove_checkpoint,
    step_of,
    whole_checkpoints,
)
from reasoning_irl.utils.sizes import amount, free_bytes, size_of

# Of the RuntimeErrors that PyTorch raises if it cannot write.
WRITE_ERRORS = ("PytorchStreamWriter", "file write failed", "unexpected pos", "iostream error")


@contextmanager
def writing(part: Path) -> Iterator[None]:
    """Within it, a checkpoint is written to `part`; one that cannot be written is removed, and a UserError says why."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in WRITE_ERRORS):
            raise
        written, run_dir = size_of(part), part.parent.parent
        shutil.rmtree(part, ignore_errors=True)
        earlier = find_checkpoint(run_dir, to_resume=True)
        need = f"about {amount(size_of(earlier))}" if earlier else f"more than {amount(written)}"
        raise UserError(
            f"{part.name} could not be written ({str(error).splitlines()[0]}): it needs {need}, and {run_dir} has "
            f"{amount(free_bytes(run_dir))} free; free some space, or set training.save_total_limit, and resume"
            + (f" from {earlier.name}, which is whole" if earlier else " it, which starts it anew")
        ) from error


@dataclass(frozen=True)
class Retention:
    """The settings of a run's checkpoints."""

    run_dir: Path
    limit: int | None  # None: all are kept
    metric: str | None  # of the log
    greater_is_better: bool

    @classmethod
    def of(cls, config: RunConfig) -> "Retention":
        return cls(Path(config.output_dir), config.save_total_limit, config.best_metric, config.greater_is_better)

    def save(self, part: Path, target: Path, also_kept: Callable[[], list[Path]] = list) -> None:
        """Publishes a finished checkpoint with its score, and removes those that are not kept any more.

        Args:
            also_kept: checkpoints that are needed whatever the limit is, once this one is there.

        Raises UserError if the metric was not logged since the last checkpoint; this one is then saved all the same.
        """
        rows = self._rows_since_last(step_of(target))
        scores = {}
        if self.metric is not None and (values := [row[self.metric] for row in rows if self.metric in row]):
            scores[self.metric] = sum(values) / len(values)
        publish_checkpoint(part, target, scores)
        if self.metric is not None and not scores:
            known = sorted({key for row in rows for key, value in row.items() if isinstance(value, float)})
            raise UserError(
                f"training.best_metric={self.metric} was not logged since the last checkpoint before {target.name}: "
                f"resume with one of {', '.join(known)}, or save less often"
            )
        self._prune(also_kept())

    def _rows_since_last(self, step: int) -> list[dict[str, Any]]:
        """The logged rows after the last checkpoint before this step, up to this step."""
        log = self.run_dir / TRAIN_LOG
        if self.metric is None or not log.is_file():
            return []
        earlier = (step_of(path) for path in whole_checkpoints(self.run_dir, to_resume=True))
        since = next((n for n in earlier if n < step), 0)
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if since < row["step"] <= step]

    def _prune(self, also_kept: Iterable[Path]) -> None:
        if self.limit is None:
            return
        found = list(whole_checkpoints(self.run_dir, to_resume=True))
        kept = {*found[: self.limit], *also_kept}
        if self.metric is not None:
            kept.add(best_checkpoint(self.run_dir, self.metric, self.greater_is_better))
        for path in found:
            if path not in kept:
                remove_checkpoint(path)
