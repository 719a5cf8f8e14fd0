"""Imports without garbage collection."""

import gc

from reasoning_irl.utils.imports import without_collection


class Node:
    """Refers to itself, so only the collector can free it."""

    def __init__(self, freed: list[int]) -> None:
        self.own, self.freed = self, freed

    def __del__(self) -> None:
        self.freed.append(1)


def test_what_was_made_within_is_not_looked_at_again_and_collection_goes_on() -> None:
    kept: list[int] = []
    freed: list[int] = []
    with without_collection():
        assert not gc.isenabled()
        Node(kept)
    assert gc.isenabled()
    Node(freed)
    gc.collect()
    assert (kept, freed) == ([], [1])
    gc.unfreeze()
    gc.collect()
    assert kept == [1]
    gc.freeze()  # as the tests' own libraries are


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
