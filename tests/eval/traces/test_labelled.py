"""The labelled traces of a split, grouped by problem."""

from reasoning_irl.eval.traces.labelled import labelled
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION
from tests.helpers.traces import made_trace

TRACES = [
    made_trace("a", VALIDATION, True, [1]),
    made_trace("b", TEST, True, [1, 2]),
    made_trace("c", TEST, None, [1]),  # unlabelled
    made_trace("a", TEST, False, [1, 1, 2]),
    made_trace("b", TEST, False, [1]),
    made_trace("b", TEST, True, [1, 1]),
]


def test_labelled_traces_of_one_split_keep_their_order() -> None:
    data, places = labelled(TRACES, TEST)
    assert places == [1, 3, 4, 5]
    assert data.traces == [TRACES[place] for place in places]
    assert data.correct.tolist() == [True, False, False, True]
    assert data.lengths.tolist() == [2, 3, 1, 2]


def test_traces_are_grouped_by_problem_even_if_they_are_interleaved() -> None:
    data, _ = labelled(TRACES, TEST)
    assert data.members == [[0, 2, 3], [1]]
    assert data.problem_of.tolist() == [0, 1, 0, 0]
    assert data.n_samples == 1


def test_split_without_labels_is_empty() -> None:
    data, places = labelled(TRACES[2:3], TEST)
    assert (data.traces, data.members, places, data.n_samples) == ([], [], [], 0)
    assert data.correct.dtype == bool
    assert data.problem_of.size == 0
