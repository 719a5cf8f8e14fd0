"""Properties that hold for every text, file and value: generated, the same ones in every run."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import to_config
from reasoning_irl.config.schema import IRLTrainConfig, PerturbationKind
from reasoning_irl.config.validate import known_keys
from reasoning_irl.data.alignment import TokenBridge, carry, carry_sums
from reasoning_irl.data.jsonl import own_record, parse_object
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record, Row, make_prompt
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.rewards.answers import (
    answers_match,
    find_boxed,
    find_equations,
    majority_key,
    parse_number,
    plain_answer,
    read_decimal,
)
from reasoning_irl.rewards.expressions import parse_expression, read_question
from reasoning_irl.rewards.options import find_options, read_choice, show_options
from reasoning_irl.text.token_spans import decode, spans_of, token_pieces
from reasoning_irl.text.trace import (
    answer_span,
    extract_answer,
    format_trace,
    is_well_formed,
    reasoning_span,
    step_spans,
)
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import to_jsonl
from tests.corpus.cases import line_of, overridden
from tests.helpers.tokenizers import COARSE, FINE

PROFILE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "\\frac{1}{2}", "{", "}", "\\", "\n", " ", "\t"),
    *(
        "3",
        "12",
        "1,800",
        ".5",
        "1/2",
        "0",
        "٣",
        "²",
        "½",
        "9" * 40,
        "-",
        "−",
        "+",
        "*",
        "x",
        "×",
        "÷",
        "/",
        "=",
        "(",
        ")",
    ),
    *(
        "$",
        "%",
        "####",
        "A. ",
        "B) ",
        "the answer is ",
        "é",
        "e\u0301",
        "👍",
        "\u2028",
        "\x00",
        "\u200b",
        "\r",
        "__import__('os')",
    ),
)
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=25).map("".join)
numbers = st.integers(0, 10**6)
equations = st.builds(
    lambda a, b, operator: f"{a} {operator} {b} = {a + b if operator == '+' else a * b}",
    numbers,
    numbers,
    st.sampled_from("+*"),
)
traces = st.builds(
    lambda steps, noise, answer: format_trace("\n".join([*steps, noise]), str(answer)),
    st.lists(equations, min_size=1, max_size=4),
    st.text(alphabet="abc 0123.,$\n", max_size=20),
    numbers,
)
rows_of_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(allow_nan=False, allow_infinity=False), hostile
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def check_line(text: str) -> None:
    assert text
    assert "\n" not in text


@PROFILE
@given(hostile)
def test_parts_of_any_text_are_inside_it_and_in_order(text: str) -> None:
    start, end = reasoning_span(text)
    assert 0 <= start <= end <= len(text)
    at = 0
    answer = answer_span(text)
    for start, end in [span for span in step_spans(text) if span != answer]:
        assert at <= start < end <= len(text)
        assert text[start:end].strip()
        at = end
    assert (extract_answer(text) or "x").strip()
    assert is_well_formed(text) <= (answer is not None)


@PROFILE
@given(st.text(alphabet="ab 1\n=", max_size=30), st.text(alphabet="ab 1", min_size=1, max_size=10))
def test_written_trace_is_read_again(reasoning: str, answer: str) -> None:
    trace = format_trace(reasoning, answer)
    assert (extract_answer(trace) or "") == answer.strip()
    assert trace[slice(*reasoning_span(trace))].strip() == reasoning.strip()


@PROFILE
@given(hostile, hostile)
def test_any_answers_are_compared(ours: str, theirs: str) -> None:
    assert answers_match(ours, ours)
    answers_match(ours, theirs)
    hash(majority_key(ours))
    find_boxed(ours)
    read_choice(ours, find_options(theirs))
    parse_expression(ours)
    read_question(ours)


@PROFILE
@given(st.integers(-(10**12), 10**12), st.integers(0, 99))
def test_written_numbers_are_read_again(whole: int, cents: int) -> None:
    for text in (str(whole), f"{whole:,}", f"{whole}.0", rf"\boxed{{{whole}}}"):
        assert parse_number(plain_answer(text)) == whole
    assert parse_number(f"{abs(whole)}.{cents:02d}") == read_decimal(f"{abs(whole)}.{cents:02d}")


@PROFILE
@given(st.one_of(traces, hostile))
def test_equations_are_where_their_spans_say(text: str) -> None:
    for equation in find_equations(text):
        assert read_decimal(text[slice(*equation.left_span)]) == equation.left
        assert read_decimal(text[slice(*equation.right_span)]) == equation.right
        assert read_decimal(text[slice(*equation.result_span)]) == equation.result


@PROFILE
@given(st.one_of(traces, hostile), hostile, st.sampled_from([None, 40]), st.integers(0, 9))
def test_perturbation_changes_the_claim_at_its_span_alone(
    trace: str, question: str, max_value: int | None, seed: int
) -> None:
    rng = random.Random(seed)
    found = sample_perturbations(trace, question, list(PerturbationKind), 4, rng, max_value=max_value)
    assert len({one.text for one in found} | {trace}) == len(found) + 1
    for one in found:
        start, end = one.span
        assert (one.text[:start], one.text[end:]) == (trace[:start], trace[len(trace) - len(one.text) + end :])
        first, last = step_spans(one.text)[one.step - 1]
        assert first <= start <= end <= last
        assert is_well_formed(one.text) == is_well_formed(trace)
        assert (extract_answer(one.text) is None) == (extract_answer(trace) is None)


@PROFILE
@given(st.lists(st.text(alphabet="abc 12", min_size=1, max_size=6), min_size=2, max_size=5, unique=True))
def test_shown_options_are_found_again(texts: list[str]) -> None:
    options = {chr(ord("A") + n): " ".join(text.split()) for n, text in enumerate(texts)}
    if all(options.values()):
        assert find_options(show_options("Which?", options)) == options


@PROFILE
@given(hostile)
def test_tokens_of_any_text_join_to_it(text: str) -> None:
    for tokenizer in (COARSE, FINE):
        ids, spans = encode_completion(tokenizer, text, NO_LIMIT)
        assert len(ids) == len(spans)
        assert "".join(token_pieces(tokenizer, ids)) == decode(tokenizer, ids)


@PROFILE
@given(hostile, st.floats(-10, 10))
def test_rewards_carried_between_tokenizers_keep_their_level_and_sum(text: str, level: float) -> None:
    (ours, source), (theirs, target) = (encode_completion(tokenizer, text, NO_LIMIT) for tokenizer in (COARSE, FINE))
    assert carry([level] * len(ours), source, target, len(text)) == pytest.approx(
        [level if text else 0.0] * len(theirs)
    )
    pieces = spans_of(token_pieces(FINE, theirs))
    if text:
        assert sum(carry_sums([level] * len(ours), source, pieces, len(text))) == pytest.approx(level * len(ours))


@PROFILE
@given(hostile, st.booleans())
def test_bridge_gives_every_policy_token_a_reward(text: str, has_end: bool) -> None:
    record = Record("r", make_prompt("3 + 4?", ""), "x", "7")
    ids, _ = encode_completion(COARSE, text, NO_LIMIT)
    bridge = TokenBridge(COARSE, FINE, [record])
    try:
        bridged = bridge.to_reward(TokenSequence(encode_prompt(COARSE, record.prompt), ids if has_end else ids[:-1]))
    except DataError:
        return  # a text that one of them cannot write, which is refused
    n_tokens = len(bridged.sequence.completion_ids)
    assert len(bridged.rewards_of_policy([1.0] * n_tokens)) == len(bridged.policy_spans)


@PROFILE
@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_one_line(data: bytes) -> None:
    try:
        assert isinstance(parse_object(data), dict)
    except DataError as error:
        check_line(str(error))


@PROFILE
@given(st.dictionaries(hostile, rows_of_json, max_size=4))
def test_written_rows_are_read_again(row: dict[str, Any]) -> None:
    assert parse_object(to_jsonl([row]).encode()) == row


@PROFILE
@given(st.dictionaries(st.sampled_from(["question", "reasoning", "answer", "id"]), rows_of_json))
def test_any_row_is_a_demonstration_or_one_line(values: dict[str, Any]) -> None:
    try:
        record = own_record(Row("mine.jsonl:1", "mine-1", values), "")
    except DataError as error:
        check_line(str(error))
    else:
        assert record.question
        assert record.answer
        assert record.id


TRACE_KEYS = (
    *("id", "prompt", "question", "completion", "correct", "answer", "answer_kind", "split", "sample", "truncated"),
    *("steps", "first_error_step", "sound", "token_ids", "prompt_ids", "token_logprobs", "label", "problem"),
    "model_output_steps",
)


@PROFILE
@given(values=st.dictionaries(st.sampled_from(TRACE_KEYS), rows_of_json), is_complete=st.booleans())
def test_any_rows_are_traces_or_one_line(values: dict[str, Any], is_complete: bool, tmp_path: Path) -> None:
    good = {"question": "3 + 4?", "completion": "3 + 4 = 7", "correct": True} if is_complete else {}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(good | values) + "\n")
    try:
        (trace,) = read_traces(path, COARSE, 0.0, 0)
    except DataError as error:
        check_line(str(error))
    else:
        assert "".join(trace.pieces) == trace.row["completion"]
        assert len(trace.pieces) == len(trace.step_ids) == len(trace.sequence.completion_ids)


values_of_keys = st.one_of(
    st.sampled_from(["null", "nan", "-inf", "1e400", "true", "[]", "{}", "[1,[2]]", "${seed}", "???", "0x1", "1_0"]),
    st.integers(-(10**25), 10**25).map(str),
    st.floats().map(str),
    hostile.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
)


@PROFILE
@given(st.sampled_from(sorted(known_keys(IRLTrainConfig))), values_of_keys)
def test_any_value_of_a_key_is_taken_or_ends_in_one_line(key: str, value: str) -> None:
    try:
        config = to_config(overridden("irl_train", [f"{key}={value}"]), IRLTrainConfig)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        check_line(line_of(error))
    else:
        assert isinstance(config, IRLTrainConfig)
