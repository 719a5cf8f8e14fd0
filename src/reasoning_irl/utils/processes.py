"""The processes of a job that `accelerate launch` or torchrun started, and what they do together.

In a single process, the usual case, nothing here imports torch, and every function returns what it is given.
The functions from `start` on are collective: every process must call them, in the same order.
"""

import logging
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reasoning_irl.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Processes wait so long for each other. The launcher ends all at once if one of them dies; this is for one that hangs.
TIMEOUT = timedelta(minutes=30)

Value = TypeVar("Value")


def rank() -> int:
    """The number of this process among those of all machines, from 0; a RANK alone, as a shell may have, is none."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """How many processes run this job, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharded_by() -> str | None:
    """FSDP or DEEPSPEED if the launcher splits the policy's weights or their training over the processes."""
    names = ("FSDP", "DEEPSPEED")
    return next((name for name in names if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1")), None)


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def hush() -> None:
    """Silences what every process would print, in all processes but the main one; errors are still shown."""
    if not is_main():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
        logging.disable(logging.WARNING)


def start() -> None:
    """Joins the other processes, and takes this one's GPU; call it before a model is loaded.

    Raises UserError if the environment names several processes but not which one this is.
    """
    if world_size() == 1:
        return
    if not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        raise UserError(
            f"WORLD_SIZE={world_size()} is in the environment without RANK, LOCAL_RANK and MASTER_ADDR: start with "
            "torchrun or accelerate launch, or unset it to start one process with python"
        )
    import torch
    from accelerate import PartialState

    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        # The library's own name for it, cpu:0, is one that torch cannot load a checkpoint to.
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    PartialState(cpu=not has_gpu, timeout=TIMEOUT)


def stop() -> None:
    """Leaves the other processes, at the end of a job that has not failed."""
    if world_size() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def barrier() -> None:
    """Waits until all processes are here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def gather(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Value] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values


def union(values: Sequence[Value]) -> list[Value]:
    """The values of all processes in one list, those of the main process first."""
    return [value for part in gather(values) for value in part]


def from_main(value: Value) -> Value:
    """The main process's value."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def add_up(tensors: "Sequence[Tensor]") -> None:
    """Replaces each tensor by its sum over all processes, in place."""
    if world_size() == 1:
        return
    import torch.distributed as dist

    for handle in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
        handle.wait()
