"""Traces with a known first wrong step: errors of a policy, and errors planted into expert traces."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.config.schema import DatasetConfig, PerturbationKind
from reasoning_irl.data.arithmetic import first_wrong_step
from reasoning_irl.data.loading import load_test
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.eval.traces.labelled_errors import ErrorSet, LabelledError, natural_errors, planted_errors
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Trace, read_traces
from reasoning_irl.text.token_spans import decode, token_pieces
from tests.helpers.configs import compose_tiny
from tests.helpers.tokenizers import COARSE
from tests.helpers.traces import FOUND, MR_GSM8K, PROCESSBENCH, made_trace, write_rows

KINDS = [PerturbationKind.operator_flip, PerturbationKind.nearby_answer]


@pytest.fixture(scope="module")
def dataset() -> DatasetConfig:
    return compose_tiny().dataset


def planted(
    dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast, traces: list[Trace], n: int, length: int = 200
) -> ErrorSet:
    return planted_errors(dataset, tokenizer, traces, KINDS, n, length, seed=0)


# Errors of a policy


def test_errors_in_a_step_without_tokens_are_counted_and_left_out() -> None:
    traces = [
        made_trace("a", TEST, False, [1, 0, 2], first_error_step=2),
        made_trace("a", TEST, False, [1, 0, 2], first_error_step=3),
        made_trace("a", VALIDATION, False, [1, 0, 2], first_error_step=3),
        made_trace("a", TEST, True, [1, 0, 2]),
        made_trace("a", TEST, False, [1, 0, 2]),  # wrong, but where is unknown
    ]
    source, at_errors, at_sound, left_out = natural_errors(traces)
    assert (at_errors, at_sound, left_out) == ([0], [3], 1)
    assert source.errors[0].wrong == [False, False, True]
    assert [trace.problem for trace in source.sound] == ["a"]


def test_soundness_follows_step_labels_rather_than_the_answer(tmp_path: Path) -> None:
    """Trap: a right answer after a wrong step is not a sound trace, and a sound trace may have a wrong answer."""
    rows = [
        {**PROCESSBENCH, "label": label, "final_answer_correct": correct, "problem": f"{label} {correct}"}
        for label in (-1, 1)
        for correct in (True, False)
    ]
    traces = read_traces(write_rows(tmp_path / "t.jsonl", rows), COARSE, 0.0, 0)
    _, at_errors, at_sound, left_out = natural_errors(traces)
    assert (at_sound, at_errors, left_out) == ([0, 1], [2, 3], 0)
    assert [trace.correct for trace in traces] == [True, False, True, False]


@pytest.mark.parametrize(("row", "step"), [(PROCESSBENCH, 2), (MR_GSM8K, 1), (FOUND, 2)])
def test_errors_of_benchmarks_have_their_labelled_step(row: dict[str, object], step: int, tmp_path: Path) -> None:
    traces = read_traces(write_rows(tmp_path / "t.jsonl", [row]), COARSE, 0.0, 0)
    source, at_errors, _, _ = natural_errors(traces)
    assert at_errors == [0]
    assert source.errors[0].step == step


def test_edited_tokens_are_wrong_if_they_are_known() -> None:
    shared = ("a", TEST, TokenSequence((1,), (1, 2, 3)), [1, 2, 2], 2, 2)
    assert LabelledError(*shared).wrong == [False, True, True]
    assert LabelledError(*shared, edited=(2,)).wrong == [False, False, True]


# Planted errors


def test_planted_error_is_one_edit_of_an_expert_in_its_labelled_step(
    dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    _, records = load_test(dataset, 0, None)
    experts = {record.id: record for record in records}
    found = planted(dataset, tokenizer, [], 30)
    assert {error.kind for error in found.errors} == set(KINDS)
    for error in found.errors:
        expert = experts[error.problem]
        text = decode(tokenizer, error.sequence.completion_ids)
        assert error.sequence.prompt_ids == encode_prompt(tokenizer, expert.prompt)
        assert error.question == expert.question
        assert first_wrong_step(text, expert.target) == error.step
        # The wrong tokens are those that differ from the expert's, and are in the wrong step.
        pieces, before = (token_pieces(tokenizer, tokenizer(t)["input_ids"]) for t in (text, expert.target))
        differing = [at for at, pair in enumerate(zip(pieces, before, strict=True)) if pair[0] != pair[1]]
        assert [at for at, is_wrong in enumerate(error.wrong) if is_wrong] == differing
        assert {error.step_ids[at] for at in differing} == {error.step}


def test_every_planted_error_has_its_intact_expert(dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    _, records = load_test(dataset, 0, None)
    targets = {record.id: record.target for record in records}
    found = planted(dataset, tokenizer, [], 30)
    assert [trace.problem for trace in found.sound] == [error.problem for error in found.errors]
    for trace in found.sound:
        assert decode(tokenizer, trace.sequence.completion_ids) == targets[trace.problem]
        assert set(trace.step_ids) - {0} == set(range(1, trace.n_steps + 1))


def test_planted_errors_are_of_the_problems_of_the_traces(
    dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = [record.id for record in load_test(dataset, 0, None)[1]]
    traces = [made_trace(ids[number], VALIDATION if number < 20 else TEST, True, [1]) for number in range(30)]
    found = planted(dataset, tokenizer, traces, 12)
    for split, own in ((VALIDATION, ids[:12]), (TEST, ids[20:30])):
        of_split = {error.problem for error in found.errors if error.split == split}
        assert of_split <= set(own)
        assert len(of_split) > len(own) / 2


def test_planted_errors_of_foreign_traces_split_the_test_data(
    dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = planted(dataset, tokenizer, [made_trace("elsewhere", TEST, True, [1])], 10)
    of_split = [{e.problem for e in found.errors if e.split == split} for split in (TEST, VALIDATION)]
    assert all(of_split)
    assert not of_split[0] & of_split[1]


def test_edits_after_the_cut_are_not_planted(dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Trap: a truncated trace without its edit is the expert's own, labelled as wrong."""
    whole, short = (planted(dataset, tokenizer, [], 40, length) for length in (200, 8))
    assert 0 < len(short.errors) < len(whole.errors)
    for error in short.errors:
        assert any(error.wrong)
        assert len(error.sequence.completion_ids) <= 8


def test_planted_errors_are_seeded(dataset: DatasetConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    first, again = (planted(dataset, tokenizer, [], 20) for _ in range(2))
    assert first == again
    assert first != planted_errors(dataset, tokenizer, [], KINDS, 20, 200, seed=1)
