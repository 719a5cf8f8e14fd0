"""Token sequences, batches of them, and encoding prompts and traces."""

from dataclasses import replace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from reasoning_irl.data import tokens
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.data.tokens import (
    TokenSequence,
    check_prompt_lengths,
    collate,
    encode_completion,
    encode_prompt,
    encode_record,
)
from reasoning_irl.utils.errors import DataError
from tests.helpers.tokenizers import byte_level

PAD = 0
# Both the longest prompt and the longest completion, but in different rows; and one without a completion.
ROWS = [TokenSequence((1, 2, 3), (4,)), TokenSequence((5,), (6, 7, 8, 9)), TokenSequence((1, 2), ())]


# Batches


def test_prompts_are_padded_on_the_left_and_completions_on_the_right() -> None:
    batch = collate(ROWS, PAD)
    assert batch.prompt_ids.tolist() == [[1, 2, 3], [0, 0, 5], [0, 1, 2]]
    assert batch.prompt_mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert batch.completion_ids.tolist() == [[4, 0, 0, 0], [6, 7, 8, 9], [0, 0, 0, 0]]
    assert batch.completion_mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.input_ids.tolist()[1] == [0, 0, 5, 6, 7, 8, 9]
    assert batch.attention_mask.tolist()[1] == [0, 0, 1, 1, 1, 1, 1]
    assert len(batch) == 3
    assert batch.prompt_ids.dtype == batch.completion_ids.dtype == torch.long


def test_sequences_undo_collate(sequences: list[TokenSequence]) -> None:
    """Trap: tokens that equal the padding id are tokens; only the mask says what padding is."""
    with_pads = [TokenSequence((PAD, 5), (PAD, 6, PAD)), *ROWS, *sequences[:5]]
    assert collate(with_pads, PAD).sequences() == with_pads


def test_slice_of_a_batch_has_its_rows() -> None:
    batch = collate(ROWS, PAD)
    assert batch[1:].sequences() == ROWS[1:]
    assert batch[:1].completion_ids.shape == (1, 4)
    assert len(batch[:2]) == 2


def test_taken_rows_have_no_column_that_none_uses(sequences: list[TokenSequence]) -> None:
    batch, rows = collate(sequences[:9], pad_id=0), torch.tensor([4, 1, 7])
    taken = batch.take(rows)
    assert taken.sequences() == [sequences[row] for row in rows]
    expected = collate([sequences[row] for row in rows], pad_id=0)
    assert torch.equal(taken.input_ids, expected.input_ids)
    assert torch.equal(taken.attention_mask, expected.attention_mask)


def test_groups_by_length_have_every_row_once_and_the_longest_first(sequences: list[TokenSequence]) -> None:
    batch = collate(sequences[:9], pad_id=0)
    groups = batch.by_length(4)
    assert [len(rows) for rows in groups] == [4, 4, 1]
    lengths = [int(batch.attention_mask[row].sum()) for rows in groups for row in rows]
    assert sorted(int(row) for rows in groups for row in rows) == list(range(9))
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 3


def test_group_ends_where_its_padding_would_cost_more_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate([TokenSequence((1,), (2,) * n) for n in (3, 9, 8, 8, 2)], pad_id=0)
    monkeypatch.setattr(tokens, "PASS_COST", 2)
    assert [rows.tolist() for rows in batch.by_length(5)] == [[1, 2, 3], [0, 4]]  # 1 + 1 tokens; a third would add 6
    monkeypatch.setattr(tokens, "PASS_COST", 1)
    assert [rows.tolist() for rows in batch.by_length(5)] == [[1, 2], [3], [0, 4]]
    assert [rows.tolist() for rows in batch.by_length(1)] == [[1], [2], [3], [0], [4]]


def test_compact_joins_prompts_and_completions_without_a_gap() -> None:
    ids, columns = collate(ROWS, PAD).compact()
    assert ids.tolist() == [[1, 2, 3, 4, 0], [5, 6, 7, 8, 9], [1, 2, 0, 0, 0]]  # 5 wide, not 3 + 4
    assert columns[0, 0] == 3
    assert columns[1].tolist() == [1, 2, 3, 4]
    assert columns.max() < ids.size(1)  # the columns of padding are within the batch too


def test_compact_columns_point_at_the_completion(sequences: list[TokenSequence]) -> None:
    batch = collate(sequences[:10], PAD)
    ids, columns = batch.compact()
    mask = batch.completion_mask.bool()
    assert torch.equal(ids.gather(1, columns)[mask], batch.completion_ids[mask])
    for row, sequence in zip(ids.tolist(), sequences[:10], strict=True):
        whole = [*sequence.prompt_ids, *sequence.completion_ids]
        assert row == whole + [PAD] * (ids.size(1) - len(whole))


# Encoding


def test_completion_is_the_trace_and_one_end_token(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> None:
    text = records[0].target
    ids, spans = encode_completion(tokenizer, text, 1000)
    assert tokenizer.decode(ids[:-1]) == text
    assert ids[-1] == tokenizer.eos_token_id
    assert list(ids).count(tokenizer.eos_token_id) == 1
    assert spans[-1] == (len(text), len(text))
    for token, (start, end) in zip(ids[:-1], spans[:-1], strict=True):
        assert tokenizer.decode([token]) == text[start:end]


def test_truncated_trace_gets_no_end_token(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> None:
    """Trap: an end token after a cut teaches that experts stop there."""
    whole, _ = encode_completion(tokenizer, records[0].target, 1000)
    for length in range(1, len(whole)):
        cut, spans = encode_completion(tokenizer, records[0].target, length)
        assert cut == whole[:length]
        assert len(spans) == length
        assert tokenizer.eos_token_id not in cut
    assert encode_completion(tokenizer, records[0].target, len(whole))[0] == whole


def test_completion_gets_no_begin_token() -> None:
    """Trap: tokenizers that put a begin token before every text."""
    beginning = byte_level(300)
    template = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", beginning.pad_token_id)])
    beginning.backend_tokenizer.post_processor = template
    with_begin = beginning("12")["input_ids"]
    assert with_begin[0] == beginning.pad_token_id
    assert encode_completion(beginning, "12", 100)[0] == (*with_begin[1:], beginning.eos_token_id)


def test_prompt_ends_where_the_answer_of_the_assistant_starts(tokenizer: PreTrainedTokenizerFast) -> None:
    question = "How many coins are there now?"
    plain = encode_prompt(tokenizer, make_prompt(question, ""))
    with_system = encode_prompt(tokenizer, make_prompt(question, "Tom has coins."))
    assert plain[-1] == with_system[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert tokenizer.eos_token_id not in plain
    assert len(with_system) > len(plain)
    assert tokenizer.decode(with_system, skip_special_tokens=True).startswith("Tom has coins.")


def test_record_is_encoded_with_the_given_trace(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> None:
    record, other = records[:2]
    found = encode_record(tokenizer, record, other.target, 5)
    assert found.prompt_ids == encode_prompt(tokenizer, record.prompt)
    assert found.completion_ids == encode_completion(tokenizer, other.target, 5)[0]


def test_first_prompt_that_is_too_long_is_named(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> None:
    """Prompts are never cut, so a long one must be an error."""
    lengths = [len(encode_prompt(tokenizer, record.prompt)) for record in records]
    check_prompt_lengths(tokenizer, records, max(lengths))
    longest = replace(records[lengths.index(max(lengths))], id="the-long-one")
    expected = f"record the-long-one has {max(lengths)} tokens, more than max_prompt_length={max(lengths) - 1}"
    with pytest.raises(DataError, match=expected):
        check_prompt_lengths(tokenizer, [records[lengths.index(min(lengths))], longest], max(lengths) - 1)
