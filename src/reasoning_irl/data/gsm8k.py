"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168), with its own solutions or with traces written by a larger model."""

import re

from reasoning_irl.data.records import NoExpertError, Record, Row, make_prompt
from reasoning_irl.rewards.answers import find_boxed, find_number, plain_answer
from reasoning_irl.text.trace import THINK_CLOSE, format_trace, reasoning_span
from reasoning_irl.utils.errors import DataError

ANSWER_MARK = "####"
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


def gsm8k_record(row: Row, system_prompt: str) -> Record:
    """Parses a row: the worked solution without calculator annotations, and the number after ####.

    Raises DataError, naming the row, if the question, the solution or the answer is missing.
    """
    question, solution = row.text("question"), row.text("answer")
    reasoning, mark, answer = solution.rpartition(ANSWER_MARK)
    if not mark:
        raise DataError(f"{row.where}: 'answer' has no line '{ANSWER_MARK} RESULT' at its end; add it")
    lines = [text.strip() for text in _CALCULATOR_MARK.sub("", reasoning).splitlines()]
    reasoning, answer = "\n".join(text for text in lines if text), answer.strip().replace(",", "")
    if not reasoning or not answer:
        part = "result after" if reasoning else "worked solution before"
        raise DataError(f"{row.where}: 'answer' has no {part} '{ANSWER_MARK}'; add it")
    return Record(
        id=f"gsm8k-{row.name}",
        prompt=make_prompt(question, system_prompt),
        target=format_trace(reasoning, answer),
        answer=answer,
    )


def gsm8k_kd_record(row: Row, system_prompt: str) -> Record:
    r"""Parses a row: the text in <think>...</think>, and the number in the last \boxed{...}, preferably after it.

    Raises DataError for a missing value, and NoExpertError for a trace that was cut off or has no number.
    """
    question, written = row.text("question"), row.text("answer")
    start, end = reasoning_span(written)
    reasoning = written[start:end].strip()
    if THINK_CLOSE not in written or not reasoning:
        raise NoExpertError(f"have no reasoning that ends with {THINK_CLOSE}")
    boxed = plain_answer(find_boxed(written[end:]) or find_boxed(written) or "")
    number = find_number(boxed)
    if number is None:
        raise NoExpertError(r"have no number in \boxed{...}")
    answer = re.sub(r"[$€£,\s]", "", boxed[slice(*number[0])])
    return Record(
        id=f"gsm8k_kd-{row.name}",
        prompt=make_prompt(question, system_prompt),
        target=format_trace(reasoning, answer),
        answer=answer,
    )
