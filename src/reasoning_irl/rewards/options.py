"""Multiple choice: the options listed in a question, and which of them an answer names."""

import re
from collections.abc import Mapping

from reasoning_irl.rewards.answers import normalise, plain_answer

_OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s*(\S.*?)\s*")
_LETTER = re.compile(r"\(?([A-Z])\)?[.):]?", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"\(?([A-Z])(?![^\W_])\)?\s*[.):–-]?\s*(\S.*)", re.IGNORECASE | re.DOTALL)
_LEAD_IN = re.compile(
    r"(?:the\s+)?(?:(?:correct|best|final|right)\s+)?(?:answer|option|choice)\s*(?:is)?\s*:?\s+",
    re.IGNORECASE,
)
_MARKUP = "*_`\"' \t\n"


def show_options(question: str, options: Mapping[str, str]) -> str:
    """The question followed by its options, one per line, in the format that `find_options` reads."""
    lines = [f"{letter}. {' '.join(text.split())}" for letter, text in options.items()]
    return "\n".join([question.strip(), "", *lines])


def find_options(question: str) -> dict[str, str]:
    """The options (letter to text) in the last lines of a question, starting at A; empty if there are none.

    Lines are read from the end, so that a list within the question is not mistaken for its options.
    """
    options: dict[str, str] = {}
    for line in reversed(question.rstrip().splitlines()):
        match = _OPTION.fullmatch(line)
        if match is None or (options and ord(match[1]) != ord(min(options)) - 1):
            break
        options[match[1]] = match[2]
        if match[1] == "A":
            return dict(reversed(options.items()))
    return {}


def read_choice(answer: str | None, options: Mapping[str, str]) -> str | None:
    """The letter of the only option that an answer names, or None.

    An option is named by its letter (B, b, (B), B.), by its full text, or by both, which must then agree. Nothing may
    follow: a letter is not read from a word or a name (E. coli), nor a text from a longer option, and an answer that
    names two options counts as naming none.
    """
    if answer is None:
        return None
    answer = plain_answer(answer).strip(_MARKUP)
    lead_in = _LEAD_IN.match(answer)
    return _read(answer, options) or (_read(answer[lead_in.end() :].strip(_MARKUP), options) if lead_in else None)


def replace_choice(answer: str, options: Mapping[str, str], letter: str) -> str:
    """Rewrites `answer` to name the option `letter` in the same style: a letter, a text, or both."""
    alone = _LETTER.fullmatch(answer)
    if alone:
        return answer[: alone.start(1)] + letter + answer[alone.end(1) :]
    if normalise(answer) in map(normalise, options.values()):
        return options[letter]
    return f"{letter}. {options[letter]}"


def _read(answer: str, options: Mapping[str, str]) -> str | None:
    letter = _LETTER.fullmatch(answer)
    if letter and letter[1].upper() in options:
        return letter[1].upper()
    said = normalise(answer)
    for option, text in options.items():
        if said == normalise(text):
            return option
    both = _LETTER_AND_TEXT.fullmatch(answer)
    if both is None or both[1].upper() not in options:
        return None
    own = both[1].upper()
    return own if normalise(both[2].strip(_MARKUP)) == normalise(options[own]) else None
