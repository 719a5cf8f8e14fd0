"""GSM8K (Cobbe et al., 2021, arXiv:2110.14168) from its original JSON lines files."""

import re
from pathlib import Path

from reasoning_irl.data.jsonl import read_jsonl, text_field
from reasoning_irl.data.records import Record, format_trace, make_prompt
from reasoning_irl.utils.errors import DataError

ANSWER_MARK = "####"
_CALCULATOR_MARK = re.compile(r"<<[^<>\n]*>>")


def load_gsm8k(path: Path, system_prompt: str) -> list[Record]:
    """The records of one GSM8K file: the worked solution without its calculator marks, and the number behind ####.

    Raises DataError for a missing or empty file and, naming file and line, for a record without a question, a
    solution or an answer.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"there is no GSM8K file at {path}: take train.jsonl or test.jsonl from the openai/grade-school-math "
            "repository (grade_school_math/data) and give it by dataset.path=FILE"
        )
    records = []
    for line, row in read_jsonl(path):
        question = text_field(row, "question", path, line)
        solution = text_field(row, "answer", path, line)
        reasoning, mark, answer = solution.rpartition(ANSWER_MARK)
        if not mark:
            raise DataError(f"{path}:{line}: 'answer' has no line '{ANSWER_MARK} RESULT' at its end; add it")
        lines = [text.strip() for text in _CALCULATOR_MARK.sub("", reasoning).splitlines()]
        reasoning, answer = "\n".join(text for text in lines if text), answer.strip().replace(",", "")
        if not reasoning or not answer:
            part = "result behind" if reasoning else "worked solution before"
            raise DataError(f"{path}:{line}: 'answer' has no {part} '{ANSWER_MARK}'; add it")
        records.append(
            Record(
                id=f"gsm8k-{path.stem}-{line}",
                prompt=make_prompt(question, system_prompt),
                target=format_trace(reasoning, answer),
                answer=answer,
            )
        )
    if not records:
        raise DataError(f"{path} holds no records: give the train.jsonl or test.jsonl of GSM8K")
    return records
