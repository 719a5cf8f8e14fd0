"""Selects the traces of a split whose correctness is known, grouped by problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.eval.traces.trace_file import Trace
from reasoning_irl.metrics.traces import Floats


@dataclass(frozen=True)
class Labelled:
    """The traces of one split whose correctness is known, grouped by problem."""

    traces: list[Trace]
    correct: NDArray[np.bool_]  # (N,)
    lengths: Floats  # (N,) tokens
    members: list[list[int]]  # for each of P problems, the indices of its traces

    @property
    def n_samples(self) -> int:
        """The smallest number of samples of any problem."""
        return min(map(len, self.members), default=0)

    @property
    def problem_of(self) -> NDArray[np.int64]:
        """(N,) the problem index of each trace."""
        problems = np.empty(len(self.traces), dtype=np.int64)
        for problem, group in enumerate(self.members):
            problems[group] = problem
        return problems


def labelled(traces: Sequence[Trace], split: str) -> tuple[Labelled, list[int]]:
    """The labelled traces of a split, and their indices in `traces`."""
    places = [at for at, trace in enumerate(traces) if trace.split == split and trace.correct is not None]
    chosen = [traces[at] for at in places]
    members: dict[str, list[int]] = {}
    for at, trace in enumerate(chosen):
        members.setdefault(trace.problem, []).append(at)
    return Labelled(
        chosen,
        np.array([bool(trace.correct) for trace in chosen], dtype=np.bool_),
        np.array([len(trace.sequence.completion_ids) for trace in chosen], dtype=np.float64),
        list(members.values()),
    ), places
