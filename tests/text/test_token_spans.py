"""Spans and texts of tokens, and the step that each token belongs to."""

import random

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data.tokens import encode_completion
from reasoning_irl.text.token_spans import (
    cut,
    decode,
    locate_steps,
    pieces_at,
    spans_of,
    step_ids,
    steps_in,
    texts_at,
    token_pieces,
    token_spans,
)
from reasoning_irl.text.trace import Span, step_spans
from tests.helpers.tokenizers import COARSE, FINE, FINE_BYTES

TRACE = "<think>\n3 + 4 = 7\n7 * 2 = 14\n</think>\n<answer>\n14\n</answer>"
TEXTS = [TRACE, "naïve café, e\u0301 combining", "emoji 👩‍👩‍👧 and 🎉, 数学は楽しい 42。", "a\n\n\nb\t\tc  ", " ", ""]
TOKENIZERS = {"coarse": COARSE, "fine": FINE, "bytes": FINE_BYTES}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = token_pieces(tokenizer, ids)
    assert "".join(pieces) == text == decode(tokenizer, ids)
    assert len(pieces) == len(ids)
    read, spans = token_spans(tokenizer, ids)
    assert read == text
    assert {c for start, end in spans for c in range(start, end)} == set(range(len(text)))


def test_pieces_of_non_canonical_and_special_tokens_join_to_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, spans = encode_completion(tokenizer, TRACE, 100)
    pieces = token_pieces(tokenizer, ids)
    assert "".join(pieces) == TRACE
    assert pieces[-1] == ""  # the end token
    steps = [(8, 17), (18, 28)]
    by_pieces, by_offsets = step_ids(TRACE, spans_of(pieces), steps), step_ids(TRACE, spans, steps)
    assert by_pieces == by_offsets
    assert [by_pieces.count(step) for step in (1, 2)] == [5, 5]

    odd = [*ids[:4], tokenizer.unk_token_id, *ids[2:6], tokenizer.pad_token_id, *ids[4:]]
    assert "".join(token_pieces(tokenizer, odd)) == decode(tokenizer, odd)
    assert len(token_pieces(tokenizer, odd)) == len(odd)


def test_special_tokens_have_an_empty_span_at_their_place() -> None:
    ids = COARSE("12 + 3", add_special_tokens=False)["input_ids"]
    assert len(ids) > 2
    text, spans = token_spans(COARSE, [*ids[:2], COARSE.pad_token_id, *ids[2:], COARSE.eos_token_id])
    assert spans[2] == (spans[1][1], spans[3][0])
    assert spans[-1] == (len(text), len(text))


def test_random_tokens_of_a_byte_tokenizer_join_to_the_text() -> None:
    """Byte tokens that spell no character, in any order, as an untrained policy samples them."""
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(len(FINE_BYTES)) for _ in range(rng.randint(1, 12))]
        text, spans = token_spans(FINE_BYTES, ids)
        assert text == decode(FINE_BYTES, ids)
        assert len(spans) == len(ids)
        assert all(0 <= start <= end <= len(text) for start, end in spans)
        assert "".join(token_pieces(FINE_BYTES, ids)) == text


def test_tokens_that_share_a_character_have_its_span_and_the_last_has_its_text() -> None:
    ids = FINE("a😀", add_special_tokens=False)["input_ids"]
    for order in (ids, [*ids[:2], COARSE.pad_token_id, *ids[2:]]):
        text, spans = token_spans(FINE, order)
        assert text == "a😀"
        assert [span for i, span in zip(order, spans, strict=True) if i != FINE.pad_token_id] == [(0, 1)] + [(1, 2)] * 4
        assert [piece for piece in token_pieces(FINE, order) if piece] == ["a", "😀"]
        assert token_pieces(FINE, order)[-1] == "😀"


def test_spaces_between_spans_go_to_a_neighbour() -> None:
    assert pieces_at("ab  c.", [(0, 2), (4, 5), (5, 6)]) == ["ab", "  c", "."]
    assert pieces_at("ab ", [(0, 2)]) == ["ab "]
    assert pieces_at("ab", [(0, 0), (0, 2), (2, 2)]) == ["", "ab", ""]


@pytest.mark.parametrize(
    ("text", "ends", "pieces"),
    [
        ("abcd", [1, 3], ["a", "bcd"]),  # the rest goes to the last piece
        ("abcd", [1, 4, 4], ["a", "bcd", ""]),
        ("abcd", [2, 1, 4], ["ab", "", "cd"]),
        ("abcd", [0, 0], ["", "abcd"]),
        ("abcd", [], []),
        ("", [0], [""]),
    ],
)
def test_cut(text: str, ends: list[int], pieces: list[str]) -> None:
    assert cut(text, ends) == pieces


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 4), (4, 5), (5, 9)], [1, 0, 2]),  # "abc\n" has visible text of step 1 only
        ([(0, 3), (3, 9)], [1, 2]),
        ([(0, 9)], [1]),  # a token over several steps belongs to the first
        ([(0, 3), (3, 3), (5, 5)], [1, 0, 0]),
    ],
)
def test_step_ids_follow_the_visible_text_of_a_token(spans: list[Span], expected: list[int]) -> None:
    text = "abc\n\ndef\n"
    assert step_ids(text, spans, step_spans(text)) == expected


def test_steps_of_a_file_are_located_in_order() -> None:
    text = "7 and 7 and 7 7"
    assert locate_steps(text, ["7", "7", "7 7"]) == [(0, 1), (6, 7), (12, 15)]
    assert locate_steps(text, ["7 7", "7"]) == []  # in another order
    assert texts_at(text, steps_in(text, ["7 and", "7 and 7 7"])) == ["7 and", "7 and 7 7"]
    assert steps_in(text, ["elsewhere"]) == steps_in(text, None) == step_spans(text)
