"""What all comparisons share: a clock, sides that take turns, and the figures that come out."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch


class Unit(StrEnum):
    """What a figure counts. Of a ratio, higher is better: it is the time of the reference over ours."""

    seconds = "s"
    ratio = "ratio"
    memory = "MiB"


@dataclass(frozen=True)
class Figure:
    """One measured value; a ratio's goal is the least that it should be, any other's is the most."""

    name: str
    value: float
    unit: Unit
    goal: float | None = None

    @property
    def is_met(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.unit == Unit.ratio else self.value <= self.goal


@dataclass(frozen=True)
class Size:
    """How much is measured. The defaults have GSM8K's lengths and the published batch, and fit one CPU core."""

    hidden: int = 256
    policy_layers: int = 6
    reward_layers: int = 2  # a third of the policy
    length: float = 1.0  # of prompts and completions, relative to GSM8K's
    n_samples: int = 32  # of an update or a step, half of them per prompt
    vocabulary: int = 128_000
    repeats: int = 3


def clock() -> float:
    """Seconds that pass only while this process works, or one that it started and waited for.

    With one thread they are what a quiet machine takes, and other programs on it disturb them little. What a GPU does
    is not in them: there, the seconds are those on the wall.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def medians(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each side. They take turns, so that what slows the machine slows all of them."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            start = clock()
            work()
            taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
