r"""The text format of a reasoning trace, and the spans of its parts.

A trace is `<think>\n` + reasoning + `\n</think>\n<answer>\n` + answer + `\n</answer>`. Its *steps* are the non-empty
lines of the reasoning; the answer is the last step, because an error can be in the answer alone.
"""

import re

ChatMessage = dict[str, str]
Span = tuple[int, int]  # character offsets [start, end) into a trace's text

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

_ANSWER = re.compile(rf"{ANSWER_OPEN}\s*(.*?)\s*{ANSWER_CLOSE}", re.DOTALL)
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_WELL_FORMED = re.compile(rf"\s*{THINK_OPEN}.*{THINK_CLOSE}\s*{ANSWER_OPEN}\s*\S.*{ANSWER_CLOSE}\s*", re.DOTALL)
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def format_trace(reasoning: str, answer: str) -> str:
    """Formats a trace from its reasoning and answer."""
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n{ANSWER_OPEN}\n{answer}\n{ANSWER_CLOSE}"


def answer_span(trace: str) -> Span | None:
    """The span of the answer's text, or None if the trace has no closed, non-empty answer."""
    match = _ANSWER.search(trace)
    return match.span(1) if match and match.group(1) else None


def extract_answer(trace: str) -> str | None:
    """The answer's text, or None if the trace has no closed, non-empty answer."""
    span = answer_span(trace)
    return trace[slice(*span)] if span else None


def reasoning_span(trace: str) -> Span:
    """The span between the think tags; from the start if the first is missing, up to the answer if the second is."""
    open_at = trace.find(THINK_OPEN)
    start = 0 if open_at < 0 else open_at + len(THINK_OPEN)
    ends = [at for tag in (THINK_CLOSE, ANSWER_OPEN) if (at := trace.find(tag, start)) >= 0]
    return start, min(ends, default=len(trace))


def step_spans(trace: str) -> list[Span]:
    """The steps of a trace in order: each non-empty line of the reasoning, then the answer if there is one."""
    start, end = reasoning_span(trace)
    steps = [match.span() for match in _LINE.finditer(trace, start, end)]
    answer = answer_span(trace)
    return [*steps, answer] if answer else steps


def is_well_formed(completion: str) -> bool:
    """Whether a completion is exactly one <think> element and one non-empty <answer> element."""
    return bool(_WELL_FORMED.fullmatch(completion)) and all(completion.count(tag) == 1 for tag in _TAGS)
