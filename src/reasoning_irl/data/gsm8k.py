"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168), and experts for its questions that a larger model wrote."""

import re

from reasoning_irl.data.records import NoExpertError, Record, Row, make_prompt
from reasoning_irl.rewards.answers import find_boxed, find_number, plain_answer
from reasoning_irl.text.trace import THINK_CLOSE, format_trace, reasoning_span
from reasoning_irl.utils.errors import DataError

ANSWER_MARK = "####"
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


def gsm8k_record(row: Row, system_prompt: str) -> Record:
    """The worked solution without its calculator marks, and the number behind ####.

    Raises DataError, naming the place, for a row without a question, a solution or an answer.
    """
    question, solution = row.text("question"), row.text("answer")
    reasoning, mark, answer = solution.rpartition(ANSWER_MARK)
    if not mark:
        raise DataError(f"{row.where}: 'answer' has no line '{ANSWER_MARK} RESULT' at its end; add it")
    lines = [text.strip() for text in _CALCULATOR_MARK.sub("", reasoning).splitlines()]
    reasoning, answer = "\n".join(text for text in lines if text), answer.strip().replace(",", "")
    if not reasoning or not answer:
        part = "result behind" if reasoning else "worked solution before"
        raise DataError(f"{row.where}: 'answer' has no {part} '{ANSWER_MARK}'; add it")
    return Record(
        id=f"gsm8k-{row.name}",
        prompt=make_prompt(question, system_prompt),
        target=format_trace(reasoning, answer),
        answer=answer,
    )


def gsm8k_kd_record(row: Row, system_prompt: str) -> Record:
    r"""What stands in <think>...</think>, and the number in the last \boxed{...}, behind the reasoning if there is one.

    Raises DataError for a missing value, and NoExpertError for a trace that was cut off or gives no number.
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
