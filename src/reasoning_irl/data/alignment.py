"""Carries token rewards from the reward model's tokenizer to the policy's, by character offsets.

Rewards are treated as a function on the characters of a completion: a character's reward is the mean over the reward
model's tokens that cover it, and a policy token's reward is the mean over its characters. A constant reward therefore
stays constant, no token counts more because it is split differently, and the character-weighted total is preserved
exactly. End tokens, which have no characters, are matched to each other.

A token without characters (a special token in the middle, a word-start marker) takes the reward of the next character.
Incomplete UTF-8 sequences are read as the character that they decode to, so that training and evaluation score the
same text.

With equal vocabularies nothing is decoded: completions keep the ids they were sampled with.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.metrics.traces import Floats, Values
from reasoning_irl.text.token_spans import token_spans
from reasoning_irl.text.trace import Span
from reasoning_irl.utils.errors import DataError


def per_character(values: Values, spans: Sequence[Span], length: int) -> Floats:
    """(L,) for each character, the mean of the values (T,) whose spans cover it.

    An uncovered character (a space that a tokenizer drops) takes the value of the next covered one or, at the end of
    the text, of the last one.
    """
    total, count = np.zeros(length), np.zeros(length)
    for value, (start, end) in zip(values, spans, strict=True):
        total[start:end] += value
        count[start:end] += 1
    covered = np.flatnonzero(count)
    if covered.size == 0:
        return total
    nearest = covered[np.minimum(np.searchsorted(covered, np.arange(length)), covered.size - 1)]
    return total[nearest] / count[nearest]


def per_token(characters: Floats, spans: Sequence[Span]) -> list[float]:
    """(T,) for each span, the mean of its characters' values (L,).

    A token without characters takes the value of the next character or, at the end of the text, of the last one; 0 if
    the text is empty.
    """
    if characters.size == 0:
        return [0.0] * len(spans)
    values = []
    for start, end in spans:
        if end > start:
            values.append(float(characters[start:end].mean()))
        else:
            values.append(float(characters[min(start, characters.size - 1)]))
    return values


def carry(values: Values, source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """Carries values of tokens with spans `source` to tokens with spans `target`, for a text of `length` characters."""
    return per_token(per_character(values, source, length), target)


def carry_sums(values: Values, source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """Like `carry`, for values that add up, such as log-probabilities: preserves their sum over tokens.

    A token's value is split evenly over its characters, and a character's over the `target` tokens that cover it;
    `target` must have no gaps. The value of a token without characters is added to the next character.
    """
    if length == 0:
        return [float(sum(values)) / len(target)] * len(target)
    total, count = np.zeros(length), np.zeros(length)
    for value, (start, end) in zip(values, source, strict=True):
        start = min(start, length - 1)
        end = max(start + 1, min(end, length))
        total[start:end] += value / (end - start)
    for start, end in target:
        count[start:end] += 1
    shares = total / np.maximum(count, 1)
    return [float(shares[start:end].sum()) for start, end in target]


def without_gaps(text: str, spans: Sequence[Span]) -> list[Span]:
    """Extends spans (T,) over the characters that a tokenizer drops or merges, so that every character has a token.

    Whitespace is added to the token after it, as in most vocabularies; anything else (such as an accent merged with its
    letter), and any remainder at the end, to the last token before it that has characters.
    """
    closed: list[Span] = []
    reach, last = 0, None  # all characters before `reach` are covered; token `last` ends there
    for start, end in spans:
        if end > start and start > reach:
            gap = text[reach:start]
            n_joined = next((at for at, c in enumerate(gap) if c.isspace()), len(gap))
            if last is not None:
                closed[last] = (closed[last][0], reach + n_joined)
                reach += n_joined
            start = reach
        closed.append((start, end))
        if end > start and end >= reach:
            reach, last = end, len(closed) - 1
    if last is not None and reach < len(text):
        closed[last] = (closed[last][0], len(text))
    return closed


@dataclass(frozen=True)
class Bridged:
    """A policy sequence in the reward model's tokens, with the spans of both tokenizations in the shared text."""

    sequence: TokenSequence  # in the reward model's tokens
    length: int  # characters of the completion
    policy_spans: list[Span]
    reward_spans: list[Span]
    has_end: bool

    def rewards_of_policy(self, rewards: Sequence[float]) -> list[float]:
        """Carries the reward model's token rewards (T_reward,) to the policy's tokens (T_policy,)."""
        if not self.has_end:
            return carry(rewards, self.reward_spans, self.policy_spans, self.length)
        inner = carry(rewards[:-1], self.reward_spans[:-1], self.policy_spans[:-1], self.length)
        return [*inner, rewards[-1]]


class TokenBridge:
    """Converts policy sequences to the reward model's tokens, for the prompts of the given records."""

    def __init__(
        self, policy: PreTrainedTokenizerBase, reward: PreTrainedTokenizerBase, records: Sequence[Record]
    ) -> None:
        self._policy, self._reward = policy, reward
        self.is_identity = policy.get_vocab() == reward.get_vocab()
        self._prompts: dict[tuple[int, ...], tuple[int, ...]] = {}
        if not self.is_identity:
            self._prompts = {encode_prompt(policy, r.prompt): encode_prompt(reward, r.prompt) for r in records}
            self._check_targets(records)

    def _check_targets(self, records: Sequence[Record]) -> None:
        """Raises DataError, before any training, for a demonstration that the reward model cannot read."""
        for record in records:
            try:
                self._encode(record.target)
            except DataError as error:
                raise DataError(f"record {record.id}: {error}") from error

    def to_reward(self, sequence: TokenSequence) -> Bridged:
        """Re-encodes a sequence. Raises DataError if the reward model's tokenizer cannot represent its text."""
        ids = sequence.completion_ids
        has_end = bool(ids) and ids[-1] == self._policy.eos_token_id
        text, policy_spans = token_spans(self._policy, ids)
        reward_ids, reward_spans = self._encode(text)
        if has_end:
            reward_ids, reward_spans = [*reward_ids, self._reward.eos_token_id], [*reward_spans, (len(text),) * 2]
        if not reward_ids:  # a truncated completion may have tokens but no text: score one token
            reward_ids, reward_spans = [self._reward.pad_token_id], [(0, 0)]
        return Bridged(
            TokenSequence(self._prompts[sequence.prompt_ids], tuple(reward_ids)),
            len(text),
            without_gaps(text, policy_spans),
            without_gaps(text, reward_spans),
            has_end,
        )

    def _encode(self, text: str) -> tuple[list[int], list[Span]]:
        # Text that spells a special token stays text: otherwise a policy could write the reward model's end token.
        encoded = self._reward(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
        ids = list(encoded["input_ids"])
        _check_same_text(text, str(self._reward.decode(ids, clean_up_tokenization_spaces=False)))
        return ids, [*map(tuple, encoded["offset_mapping"])]


def _check_same_text(text: str, read: str) -> None:
    """Raises DataError if a tokenizer's ids decode to `read` instead of `text`.

    Two differences are allowed: canonically equivalent characters (Unicode NFC, which some tokenizers apply), and a
    leading space that doubles as the word-start marker.
    """
    ours, theirs = (unicodedata.normalize("NFC", part) for part in (text, read))
    if theirs in (ours, ours.removeprefix(" ")):
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    raise DataError(
        f"the reward model's tokenizer reads {ours[at : at + 20]!r} as {theirs[at : at + 20]!r}, so rewards cannot be "
        "carried to the policy's tokens: choose a model.reward_name whose tokenizer preserves all text"
    )
