"""The text of each token, and the step each token belongs to, by character offsets."""

from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.records import Span


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a completion, special tokens left out."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)  # a list only for a batch
    return text


def token_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """One text a token (T,), which join to `decode(tokenizer, ids)`; a special token has the empty text.

    Space between words goes with one of its neighbours. Of a character that several tokens spell, the
    last of them has the text.
    """
    text = decode(tokenizer, ids)
    special = set(tokenizer.all_special_ids)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] == [i for i in ids if i not in special]:
        spans = iter(encoded["offset_mapping"])
        at, ends = 0, []
        for i in ids:
            at = at if i in special else next(spans)[1]
            ends.append(at)
        return cut(text, ends)
    alone = [decode(tokenizer, [i]) for i in ids]
    if "".join(alone) == text:
        return alone
    # Neither the one way to write this text nor a plain join: decode every prefix, which is slow but always right.
    ends = [_shared(decode(tokenizer, ids[: n + 1]), text) for n in range(len(ids))]
    return cut(text, ends)


def _shared(a: str, b: str) -> int:
    """Length of the longest common beginning."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def cut(text: str, ends: Sequence[int]) -> list[str]:
    """`text` in pieces (T,) that end at the offsets `ends` (T,); what is left over goes to the last visible piece."""
    if not ends:
        return []
    reached, at = [0], 0
    for end in ends:
        at = max(at, end)
        reached.append(at)
    last = max(reached)
    reached = [len(text) if end == last and end > 0 else end for end in reached]
    if last == 0:
        reached[-1] = len(text)
    return [text[start:end] for start, end in pairwise(reached)]


def spans_of(pieces: Sequence[str]) -> list[Span]:
    """Character offsets of each piece in the text they join to."""
    spans, at = [], 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    return spans


def step_ids(text: str, token_spans: Sequence[Span], steps: Sequence[Span]) -> list[int]:
    """The step (T,), from 1, of which each token shows some visible text; 0 for a token outside all steps."""
    ids, step = [], 0  # `step` counts those that lie wholly before the token; both lists are in order
    for start, end in token_spans:
        while step < len(steps) and steps[step][1] <= start:
            step += 1
        inside = text[max(start, steps[step][0]) : min(end, steps[step][1])] if step < len(steps) else ""
        ids.append(step + 1 if inside.strip() else 0)
    return ids
