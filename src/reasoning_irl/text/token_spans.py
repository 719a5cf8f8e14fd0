"""Character spans of tokens in their text, and the reasoning step each token belongs to."""

from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from reasoning_irl.text.trace import Span, step_spans

UNFINISHED = "\ufffd"  # what an incomplete UTF-8 sequence decodes to


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decodes a completion without its special tokens."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)  # a list only for a batch
    return text


def token_spans(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """Returns the text of a completion and the character span of each token (T,).

    Tokens that together encode one character all get its span. Special tokens get an empty span. Spaces between words
    may belong to no token.
    """
    text = decode(tokenizer, ids)
    special = set(tokenizer.all_special_ids)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] == [i for i in ids if i not in special]:
        known = iter(encoded["offset_mapping"])
        at, spans = 0, []
        for i in ids:
            start, end = (at, at) if i in special else next(known)
            at = max(at, end)
            spans.append((start, end))
        return text, spans
    alone = [decode(tokenizer, [i]) for i in ids]
    if "".join(alone) == text:
        return text, spans_of(alone)
    # Neither re-encoding nor decoding token by token works: decode every prefix, which is slow but always right.
    at, spans = 0, []
    for n in range(len(ids)):
        written = decode(tokenizer, ids[: n + 1])
        end = max(at, _shared(written, text))
        begins_next = written[end : end + 1] == UNFINISHED and end < len(text)
        spans.append((at, end + begins_next))
        at = end
    return text, spans


def token_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Splits `decode(tokenizer, ids)` into one piece per token (T,); special tokens get an empty piece."""
    return pieces_at(*token_spans(tokenizer, ids))


def pieces_at(text: str, spans: Sequence[Span]) -> list[str]:
    """Splits `text` into one piece per token span (T,).

    Spaces between words are attached to a neighbouring token. If several tokens encode one character, the last of them
    gets it.
    """
    ends, next_start = [], len(text)
    for start, end in reversed(spans):
        ends.append(min(end, next_start))
        next_start = min(next_start, start) if end > start else next_start
    return cut(text, ends[::-1])


def _shared(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def cut(text: str, ends: Sequence[int]) -> list[str]:
    """Cuts `text` into pieces (T,) at the end offsets `ends` (T,); the remainder goes to the last non-empty piece."""
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
    """Character offsets of each piece in the joined text."""
    spans, at = [], 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    return spans


def step_ids(text: str, token_spans: Sequence[Span], steps: Sequence[Span]) -> list[int]:
    """The step (T,), from 1, that each token's visible text belongs to; 0 for tokens outside all steps."""
    ids, step = [], 0  # `step` counts the steps that end before the token; both lists are sorted
    for start, end in token_spans:
        while step < len(steps) and steps[step][1] <= start:
            step += 1
        inside = text[max(start, steps[step][0]) : min(end, steps[step][1])] if step < len(steps) else ""
        ids.append(step + 1 if inside.strip() else 0)
    return ids


def steps_in(text: str, named: Sequence[str] | None) -> list[Span]:
    """Locates the steps listed in a file, whichever rule split them; falls back to the steps of the text."""
    spans = step_spans(text)
    if not named or texts_at(text, spans) == [step.strip() for step in named]:
        return spans
    return locate_steps(text, named) or spans


def texts_at(text: str, spans: Sequence[Span]) -> list[str]:
    return [text[start:end].strip() for start, end in spans]


def locate_steps(text: str, named: Sequence[str]) -> list[Span]:
    """Finds the steps in order, each after the previous one; empty if any of them is missing.

    Exact if the text is the steps joined by whitespace, even if some of them are identical.
    """
    spans, end = [], 0
    for step in named:
        start = text.find(step.strip(), end)
        if start < 0:
            return []
        end = start + len(step.strip())
        spans.append((start, end))
    return spans
