from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.training.experts import ExpertPool, ReplayBuffer
from reasoning_irl.utils.errors import DataError

MakePool = Callable[..., ExpertPool]


@pytest.fixture
def make_pool(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> MakePool:
    def make(
        chosen: list[Record] = records,
        max_length: int = 100,
        seed: int = 0,
        n_drawn: int | None = None,
        keeps_copies: bool = False,
    ):
        return ExpertPool(chosen, tokenizer, max_length, list(PerturbationKind), 40, seed, n_drawn, keeps_copies)

    return make


def test_perturbed_copies_keep_their_own_prompt(
    make_pool: MakePool, tokenizer: PreTrainedTokenizerFast, records: list[Record]
) -> None:
    """Trap: a perturbed negative with another expert's prompt, or one that changes nothing."""
    pool = make_pool()
    for record in pool.draw(len(records)):
        copies = pool.perturbed(record, 3)
        assert len(copies) == 3
        assert len(set(copies)) == 3
        for copy in copies:
            assert copy.prompt_ids == encode_prompt(tokenizer, record.prompt)
            assert copy.completion_ids != pool.sequence(record).completion_ids
            assert copy.completion_ids[-1] == tokenizer.eos_token_id
            assert tokenizer.unk_token_id not in copy.completion_ids


def test_copy_whose_error_was_cut_off_is_not_used(make_pool: MakePool, records: list[Record]) -> None:
    """Trap: if the edit is after the cut, the copy is the expert itself, labelled as a negative."""
    pool = make_pool(max_length=8)  # <think>, a line break, and the first equation
    n_copies = 0
    for record in records:
        copies = pool.perturbed(record, 4)
        n_copies += len(copies)
        assert pool.sequence(record) not in copies
        assert len(set(copies)) == len(copies)
    assert n_copies > len(records) / 2


def test_copies_are_fresh_unless_they_are_kept(make_pool: MakePool, records: list[Record]) -> None:
    fresh, keeping = make_pool(), make_pool(keeps_copies=True)
    assert fresh.perturbed(records[0], 2) != fresh.perturbed(records[0], 2)
    kept = [keeping.perturbed(record, 2) for record in records[:9]]
    assert [keeping.perturbed(record, 2) for record in records[:9]] == kept
    resumed = make_pool(keeps_copies=True, seed=9)
    resumed.load_state_dict(keeping.state_dict())
    assert [resumed.perturbed(record, 2) for record in records[:9]] == kept


def test_pool_draws_without_replacement(make_pool: MakePool, records: list[Record]) -> None:
    pool = make_pool()
    first, second = ([r.id for r in pool.draw(len(records))] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(r.id for r in records)
    assert first != second
    assert first != [r.id for r in records]


def test_pool_never_draws_held_out_experts(make_pool: MakePool, records: list[Record]) -> None:
    """Trap: measuring the held-out AUROC on experts that were trained on."""
    pool = make_pool(n_drawn=10)
    assert {r.id for r in pool.draw(100)} == {r.id for r in records[:10]}
    assert pool.sequence(records[-1]).completion_ids  # but they can be encoded


def test_pool_resumes_at_the_same_place(make_pool: MakePool, records: list[Record]) -> None:
    pool, resumed = make_pool(), make_pool(seed=5)
    pool.draw(len(records) + 7)
    pool.perturbed(records[0], 2)
    resumed.load_state_dict(pool.state_dict())
    for _ in range(3):
        drawn = pool.draw(15)
        assert drawn == resumed.draw(15)
        assert [pool.perturbed(r, 2) for r in drawn] == [resumed.perturbed(r, 2) for r in drawn]


def test_state_of_the_pool_is_a_snapshot(make_pool: MakePool) -> None:
    pool, resumed = make_pool(), make_pool()
    pool.draw(3)
    state = pool.state_dict()
    expected = pool.draw(9)
    resumed.load_state_dict(state)
    assert resumed.draw(9) == expected


def test_empty_data_set_is_an_error(make_pool: MakePool) -> None:
    with pytest.raises(DataError, match="empty"):
        make_pool([])


def samples(start: int, stop: int) -> list[TokenSequence]:
    return [TokenSequence((1,), (i,)) for i in range(start, stop)]


@pytest.mark.parametrize("chunk", [1, 3, 10, 25])
def test_replay_buffer_keeps_the_newest_samples(chunk: int) -> None:
    buffer = ReplayBuffer(10, seed=0)
    for start in range(0, 50, chunk):
        buffer.add(samples(start, min(start + chunk, 50)))
        assert len(buffer) <= 10
    assert sorted(s.completion_ids[0] for s in buffer.draw(10)) == list(range(40, 50))


def test_replay_buffer_draws_distinct_samples_and_no_more_than_it_has() -> None:
    buffer = ReplayBuffer(10, seed=0)
    assert buffer.draw(4) == []
    buffer.add(samples(0, 3))
    assert sorted(s.completion_ids[0] for s in buffer.draw(4)) == [0, 1, 2]


def test_replay_buffer_of_capacity_zero_stays_empty() -> None:
    buffer = ReplayBuffer(0, seed=0)
    buffer.add(samples(0, 5))
    assert len(buffer) == 0


def test_replay_buffer_resumes_at_the_same_place() -> None:
    buffer, resumed = ReplayBuffer(10, seed=0), ReplayBuffer(10, seed=9)
    buffer.add(samples(0, 14))
    buffer.draw(3)
    resumed.load_state_dict(buffer.state_dict())
    assert [buffer.draw(4) for _ in range(3)] == [resumed.draw(4) for _ in range(3)]
