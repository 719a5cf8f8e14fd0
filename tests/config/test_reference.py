"""The page of all keys is current and complete."""

import re

from reasoning_irl.config.compose import SCHEMAS
from reasoning_irl.config.reference import comments, page, rows
from reasoning_irl.config.validate import known_keys
from tests.helpers.commands import REPOSITORY


def test_page_is_current() -> None:
    """If it is not: python -m reasoning_irl.config.reference > docs/config.md"""
    assert (REPOSITORY / "docs/config.md").read_text() == page()


def test_every_key_has_a_meaning() -> None:
    texts = comments()
    for node in SCHEMAS.values():
        meanings = {row.key: row.meaning for row in rows(node, texts)}
        assert set(known_keys(node)) <= meanings.keys()
        assert [key for key, meaning in meanings.items() if not meaning] == []


def test_ranges_and_choices_are_shown() -> None:
    text = page()
    assert re.search(
        r"`training\.num_generations` \| integer, at least 2 \| samples per prompt \| irl_train, train ", text
    )
    assert "`model.reward_layers` | integer, null, at least 1 |" in text
    assert "`dense`: every token" in text
