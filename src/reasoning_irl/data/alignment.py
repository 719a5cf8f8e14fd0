"""Token rewards between two tokenizers, by character offsets.

A reward is taken as a function on the characters of a completion: a character's reward is the mean over the reward
model's tokens that cover it, and a policy token's reward is the mean over its own characters. So a constant reward
stays constant, no token's reward counts for more because it is split differently, and the total weighted by
characters is carried across exactly. The end token, which has no characters, corresponds to the end token.

With equal vocabularies nothing is decoded: completions keep the ids they were sampled with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.records import Record, Span
from reasoning_irl.data.tokens import TokenSequence, encode_prompt
from reasoning_irl.eval.pieces import decode, spans_of, token_pieces
from reasoning_irl.utils.errors import DataError

Floats = NDArray[np.float64]


def per_character(values: Sequence[float], spans: Sequence[Span], length: int) -> Floats:
    """(L,) the mean of the values (T,) whose spans cover each character.

    A character that no token covers (space that a tokenizer drops) takes the value of the next one that is covered,
    at the end of the text of the last one.
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
    """(T,) the mean of the characters' values (L,) in each span.

    A token without characters takes the value of the character it stands before, at the end of the text of the last
    one, and 0 where the text is empty.
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


def carry(values: Sequence[float], source: Sequence[Span], target: Sequence[Span], length: int) -> list[float]:
    """Values of tokens with spans `source` as values of tokens with spans `target`, of one text of `length`."""
    return per_token(per_character(values, source, length), target)


@dataclass(frozen=True)
class Bridged:
    """A policy's sequence as the reward model reads it, with the spans of both sides in the one text."""

    sequence: TokenSequence  # in the reward model's tokens
    length: int  # characters of the completion
    policy_spans: list[Span]
    reward_spans: list[Span]
    has_end: bool

    def rewards_of_policy(self, rewards: Sequence[float]) -> list[float]:
        """The reward model's token rewards (T_reward,) at the policy's tokens (T_policy,)."""
        if not self.has_end:
            return carry(rewards, self.reward_spans, self.policy_spans, self.length)
        inner = carry(rewards[:-1], self.reward_spans[:-1], self.policy_spans[:-1], self.length)
        return [*inner, rewards[-1]]


class TokenBridge:
    """From the policy's tokens to the reward model's, for the prompts of the given records."""

    def __init__(
        self, policy: PreTrainedTokenizerBase, reward: PreTrainedTokenizerBase, records: Sequence[Record]
    ) -> None:
        self._policy, self._reward = policy, reward
        self.is_identity = policy.get_vocab() == reward.get_vocab()
        self._prompts: dict[tuple[int, ...], tuple[int, ...]] = {}
        if not self.is_identity:
            self._prompts = {encode_prompt(policy, r.prompt): encode_prompt(reward, r.prompt) for r in records}

    def to_reward(self, sequence: TokenSequence) -> Bridged:
        """Raises DataError where the reward model's tokenizer cannot write the completion's text."""
        ids = sequence.completion_ids
        has_end = bool(ids) and ids[-1] == self._policy.eos_token_id
        text = decode(self._policy, ids)
        encoded = self._reward(text, add_special_tokens=False, return_offsets_mapping=True)
        reward_ids, reward_spans = list(encoded["input_ids"]), [*map(tuple, encoded["offset_mapping"])]
        _check_same_text(self._reward, reward_ids, text)
        if has_end:
            reward_ids, reward_spans = [*reward_ids, self._reward.eos_token_id], [*reward_spans, (len(text),) * 2]
        if not reward_ids:  # a cut-off completion without any text is still one token long for the policy
            reward_ids, reward_spans = [self._reward.pad_token_id], [(0, 0)]
        return Bridged(
            TokenSequence(self._prompts[sequence.prompt_ids], tuple(reward_ids)),
            len(text),
            spans_of(token_pieces(self._policy, ids)),
            reward_spans,
            has_end,
        )


def _check_same_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> None:
    """Whether the ids say the text, up to the tokenizer's own normalisation and the space in front."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    ours, theirs = (
        (part if normalizer is None else normalizer.normalize_str(part)).lstrip()
        for part in (text, decode(tokenizer, ids))
    )
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    raise DataError(
        f"the reward model's tokenizer reads {ours[at : at + 20]!r} as {theirs[at : at + 20]!r}, so rewards cannot be "
        "carried to the policy's tokens: choose model.reward_name with a tokenizer that keeps all text"
    )
