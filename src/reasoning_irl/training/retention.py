"""Which checkpoints a run keeps, and which of them is its best."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from reasoning_irl.config.schema import RunConfig
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.log import logger
from reasoning_irl.utils.run_folder import (
    best_checkpoint,
    find_checkpoint,
    logged_rows,
    publish_checkpoint,
    remove_checkpoint,
    step_of,
    whole_checkpoints,
)
from reasoning_irl.utils.sizes import amount, free_bytes, size_of

# In what libraries raise if they cannot write a file.
WRITE_ERRORS = ("PytorchStreamWriter", "file write failed", "unexpected pos", "iostream error", "os error 28")


@contextmanager
def writing(part: Path) -> Iterator[None]:
    """Within it, a checkpoint is written to `part`; one that cannot be written is removed, and a UserError says why."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each library has its own kind: PyTorch RuntimeError, tokenizers a plain Exception
        if not isinstance(error, OSError | SafetensorError) and not any(words in str(error) for words in WRITE_ERRORS):
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
        """Publishes a finished checkpoint, and removes those that are not kept any more.

        Args:
            also_kept: checkpoints that are needed whatever the limit is, once this one is there.

        Warns if the metric was never logged.
        """
        step = step_of(target)
        earlier = (step_of(path) for path in whole_checkpoints(self.run_dir))
        with writing(part):
            publish_checkpoint(part, target, since=next((n for n in earlier if n < step), 0))
        rows = [row for row in logged_rows(self.run_dir) if row["step"] > 0]  # 0: of the warm-up
        if self.metric is not None and rows and not any(self.metric in row for row in rows):
            known = sorted({key for row in rows for key, value in row.items() if isinstance(value, float)})
            logger.warning(
                "training.best_metric=%s was not logged in %d steps, so no checkpoint is the best; what was: %s",
                self.metric,
                step,
                ", ".join(known),
            )
        if self.limit is None:
            return
        found = list(whole_checkpoints(self.run_dir))
        kept = {*found[: self.limit], *also_kept()}
        if self.metric is not None and (best := best_checkpoint(self.run_dir, self.metric, self.greater_is_better)):
            kept.add(best)
        for path in found:
            if path not in kept:
                remove_checkpoint(path)
