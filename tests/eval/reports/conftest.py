"""A labelled test split and a score of its traces, for the reports of whole traces."""

import numpy as np
import pytest

from reasoning_irl.eval.traces.labelled import Labelled, labelled
from reasoning_irl.eval.traces.trace_file import TEST
from reasoning_irl.metrics.traces import Floats
from tests.helpers.traces import answered_trace


@pytest.fixture(scope="session")
def data() -> Labelled:
    """Eight problems of four samples each; the right answer is 0, and some have no answer."""
    rng = np.random.default_rng(0)
    answers, lengths = rng.integers(0, 4, 32).tolist(), rng.integers(3, 30, 32).tolist()
    traces = [answered_trace(f"p{i // 4}", answer, lengths[i]) for i, answer in enumerate(answers)]
    return labelled(traces, TEST)[0]


@pytest.fixture(scope="session")
def scores(data: Labelled) -> Floats:
    """A noisy score (32,) that knows a little about correctness; rounded, so that some are tied."""
    return np.round(np.random.default_rng(1).normal(size=32) + data.correct, 1)
