"""The values of each method, and dropping traces whose values are not finite."""

from pathlib import Path

import numpy as np
import pytest

from reasoning_irl.config.schema import OnError
from reasoning_irl.eval.scoring.values import combined, drop_non_finite, score_traces
from reasoning_irl.eval.traces.labelled import labelled
from reasoning_irl.eval.traces.trace_file import TEST, Skipped, Trace
from reasoning_irl.metrics.traces import TokenValues
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import made_trace

NAN, INF = float("nan"), float("inf")


def three_traces() -> list[Trace]:
    traces = []
    for line in (1, 2, 3):
        trace = made_trace(f"p{line}", TEST, line == 1, [1] * (line + 1))
        traces.append(Trace(**{**vars(trace), "line": 10 * line}))
    return traces


def skipping() -> Skipped:
    return Skipped(Path("t.jsonl"), OnError.skip)


def test_trace_scores_need_no_model() -> None:
    data, _ = labelled(three_traces(), TEST)
    found = score_traces(data)
    assert found["length"].tolist() == [-2.0, -3.0, -4.0]  # shorter is better
    assert found["oracle"].tolist() == [1.0, 0.0, 0.0]
    assert len(set(found["random"].tolist())) == 1


def test_combination_adds_values_standardised_on_validation_tokens() -> None:
    """Trap: means of traces instead of tokens, or of test traces, which would choose on what is reported."""
    a, b = [[1.0, 3.0], [5.0], [100.0]], [[0.0, 0.0], [6.0], [2.0]]  # the third is a test trace
    mean_a, std_a = 3.0, np.std([1.0, 3.0, 5.0])
    mean_b, std_b = 2.0, np.std([0.0, 0.0, 6.0])
    found = combined([a, b], [0, 1])
    assert found is not None
    expected = [
        [(x - mean_a) / std_a + (y - mean_b) / std_b for x, y in zip(*of, strict=True)] for of in zip(a, b, strict=True)
    ]
    assert [list(values) for values in found] == [pytest.approx(values) for values in expected]
    assert a == [[1.0, 3.0], [5.0], [100.0]]  # the parts are not changed
    constant = combined([[[2.0], [2.0]]], [0, 1])
    assert constant is not None
    assert [list(values) for values in constant] == [[0.0], [0.0]]


def test_combination_needs_all_its_parts_and_validation_traces() -> None:
    assert combined([[[1.0]], None], [0]) is None
    assert combined([[[1.0]], [[2.0]]], []) is None


def test_finite_values_drop_nothing() -> None:
    traces, skipped = three_traces(), skipping()
    values: dict[str, TokenValues | None] = {"reward": [[0.0], [1.0], [2.0], [3.0]], "frozen": None}
    assert drop_non_finite(traces, values, skipped) == (traces, values)
    assert skipped.reasons == {}


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_trace_with_a_non_finite_value_is_dropped_with_the_values_of_every_method(bad: float) -> None:
    """Trap: values that are not dropped are taken for those of the next trace or of a planted error."""
    traces, skipped = three_traces(), skipping()
    values: dict[str, TokenValues | None] = {
        "reward": [[0.0], [1.0], [2.0], [3.0]],  # the last is of a planted error
        "logprob": [[0.5], [1.5, bad], [2.5], [3.5]],
        "frozen": None,
    }
    kept, left = drop_non_finite(traces, values, skipped)
    assert kept == [traces[0], traces[2]]
    assert left == {"reward": [[0.0], [2.0], [3.0]], "logprob": [[0.5], [2.5], [3.5]], "frozen": None}
    assert list(skipped.reasons) == [20]
    assert skipped.reasons[20].startswith(f"the logprob (problem 'p2') is {bad} at token 2")


def test_trace_that_is_bad_for_several_methods_is_dropped_once() -> None:
    skipped = skipping()
    values: dict[str, TokenValues | None] = {"reward": [[NAN], [1.0], [NAN]], "logprob": [[NAN], [0.0], [0.0]]}
    kept, left = drop_non_finite(three_traces(), values, skipped)
    assert [trace.line for trace in kept] == [20]
    assert left == {"reward": [[1.0]], "logprob": [[0.0]]}
    assert {line: reason.split(" (")[0] for line, reason in skipped.reasons.items()} == {
        10: "the reward",
        30: "the reward",
    }


def test_non_finite_values_are_errors_unless_rows_may_be_skipped() -> None:
    with pytest.raises(DataError, match=r"t\.jsonl:20: the reward \(problem 'p2'\) is nan at token 1"):
        drop_non_finite(three_traces(), {"reward": [[0.0], [NAN], [0.0]]}, Skipped(Path("t.jsonl")))


def test_planted_errors_are_never_dropped() -> None:
    values: dict[str, TokenValues | None] = {"reward": [np.zeros(2)] * 4 + [np.array([0.0, NAN])]}
    with pytest.raises(DataError, match="the reward of planted error 2 is nan at token 2"):
        drop_non_finite(three_traces(), values, skipping())


def test_dropping_every_trace_is_an_error() -> None:
    with pytest.raises(DataError, match=r"every trace was dropped: 3 rows of t\.jsonl \(line 10: the reward"):
        drop_non_finite(three_traces(), {"reward": [[NAN]] * 3}, skipping())
