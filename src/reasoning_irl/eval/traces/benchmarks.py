"""Converts rows of published step-error benchmarks (solutions with a labelled first wrong step) to traces-file rows.

Each converter returns the plain keys: question, completion (the steps joined), correct (the final answer), steps,
first_error_step (from 1, or None) and `sound` (whether the label says that no step is wrong). `correct` and `sound`
differ: a right answer may follow a wrong step, and step metrics use the step label alone. Other keys stay in the row.
Every converter raises DataError, without file and line, if the row does not have its format.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from reasoning_irl.rewards.answers import answers_match
from reasoning_irl.utils.errors import DataError

Values = Mapping[str, Any]


class Shape(StrEnum):
    plain = "plain"  # this project's own: question, completion, correct
    processbench = "ProcessBench"
    prm800k = "PRM800K"
    mr_gsm8k = "MR-GSM8K"


def shape_of(row: Values) -> Shape | None:
    """Detects the format of a row from its keys; None if they do not show it."""
    if "completion" in row:
        return Shape.plain
    if "model_output_steps" in row:
        return Shape.mr_gsm8k
    if "problem" in row:
        return Shape.processbench
    if isinstance(row.get("question"), dict) and "label" in row:
        return Shape.prm800k
    return Shape.plain if "steps" in row else None


def to_plain(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Converts a row to the plain keys. A row that already has them is returned unchanged."""
    return CONVERTERS[shape](row)


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """This project's format. A missing completion is the steps joined; if `correct` is missing, the label sets `sound`.

    With `correct` present, a null label does not mean sound: nobody may have looked for errors.
    """
    added: dict[str, Any] = {}
    if "completion" not in row and "steps" in row:
        added["completion"] = "\n".join(_texts(row, "steps"))
    if "correct" not in row and "first_error_step" in row:
        added |= {"correct": None, "sound": row["first_error_step"] is None}
    return {**added, **row} if added else row


def processbench(row: Values) -> dict[str, Any]:
    """Zheng et al. 2024 (arXiv:2412.06559): `label` is the first wrong step from 0, or -1 for none."""
    steps, label = _texts(row, "steps"), _value(row, "label")
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise DataError(f"'label' is {label!r}; it must be -1 or the index, from 0, of one of the {len(steps)} steps")
    # Here an id names a solution; used as a problem id, it could put one problem's solutions in both splits.
    return {
        **_others(row, "id", "problem", "label"),
        **({"source_id": row["id"]} if "id" in row else {}),
        "question": _text(row, "problem"),
        "completion": "\n\n".join(steps),
        "correct": _flag(row, "final_answer_correct"),
        "steps": steps,
        "first_error_step": None if label == -1 else label + 1,
        "sound": label == -1,
    }


def prm800k(row: Values) -> dict[str, Any]:
    """Lightman et al. 2023 (arXiv:2305.20050): a rating of -1 marks a wrong step.

    A solution generated before labelling (phase 2) is used in full, although its labels stop at the first wrong step.
    Otherwise the solution is the labeller's path: at each step the chosen completion, or the one the labeller wrote;
    if there is neither, the path ends with the first completion rated -1. If the labeller gave up, or the problem is
    broken, the solution counts as unlabelled.
    """
    question, label = _object(row, "question"), _object(row, "label")
    reason = _value(label, "finish_reason")
    path, wrong = _path(_value(label, "steps"))
    whole = question.get("pre_generated_steps")
    if isinstance(whole, list) and all(isinstance(step, str) for step in whole) and whole[: len(path)] == path:
        steps: list[str] = whole
        answer, reference = question.get("pre_generated_answer"), question.get("ground_truth_answer")
        known = isinstance(answer, str) and isinstance(reference, str)
        correct = answers_match(str(answer), str(reference)) if known else None
    else:
        steps, correct = path, None
    if not steps:
        raise DataError("'label.steps' has no step that was chosen, written by the labeller or rated -1")
    is_judged = reason in ("solution", "found_error")
    return {
        **_others(row, "question", "label"),
        "question": _text(question, "problem"),
        "completion": "\n".join(steps),
        "correct": True if reason == "solution" else correct if is_judged else None,
        "steps": steps,
        "first_error_step": wrong if is_judged else None,
        "sound": reason == "solution" and wrong is None,
    }


def _path(steps: Any) -> tuple[list[str], int | None]:
    """The step texts along the labeller's path, and the number, from 1, of the first one rated -1."""
    if not isinstance(steps, list):
        raise DataError("'label.steps' must be a list")
    texts: list[str] = []
    wrong: int | None = None
    for step in steps:
        if not isinstance(step, dict) or not isinstance(step.get("completions"), list | None):
            raise DataError("'label.steps' must be objects with a list of 'completions'")
        rated = [completion for completion in step.get("completions") or [] if isinstance(completion, dict)]
        chosen, own = step.get("chosen_completion"), step.get("human_completion")
        if chosen is not None:
            if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(rated):
                raise DataError(f"'chosen_completion' is {chosen!r} of {len(rated)} completions")
            taken = rated[chosen]
        elif own is not None:
            taken = own if isinstance(own, dict) else {"text": own}
        else:
            taken = next((completion for completion in rated if completion.get("rating") == -1), {})
            if not taken:
                break
        texts.append(_text(taken, "text"))
        if taken.get("rating") == -1 and wrong is None:
            wrong = len(texts)
        if chosen is None and own is None:
            break
    return texts, wrong


def mr_gsm8k(row: Values) -> dict[str, Any]:
    """Zeng et al. 2023 (arXiv:2312.17080): the first wrong step from 1, or N/A if the solution is right."""
    steps = _texts(row, "model_output_steps")
    is_sound = _correctness(row, "model_output_solution_correctness")
    step = None if is_sound else _step_number(_value(row, "model_output_solution_first_error_step"))
    answered = "model_output_answer_correctness" in row
    return {
        **_others(row, "model_output_steps"),
        "question": _text(row, "question"),
        "completion": "\n".join(steps),
        "correct": _correctness(row, "model_output_answer_correctness") if answered else is_sound,
        "steps": steps,
        "first_error_step": step,
        "sound": is_sound,
    }


def _step_number(value: Any) -> int:
    number = value.strip() if isinstance(value, str) else value
    if isinstance(number, str) and number.isdecimal():
        return int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise DataError(
            f"'model_output_solution_first_error_step' is {value!r} in a wrong solution; give a step number"
        )
    return number


def _correctness(row: Values, key: str) -> bool:
    value = _value(row, key)
    said = value.strip().lower() if isinstance(value, str) else value
    known = {"correct": True, "wrong": False, "incorrect": False, True: True, False: False}
    if not isinstance(said, str | bool) or said not in known:
        raise DataError(f"'{key}' is {value!r}; it must be correct or wrong")
    return known[said]


CONVERTERS: dict[Shape, Callable[[dict[str, Any]], dict[str, Any]]] = {
    Shape.plain: plain,
    Shape.processbench: processbench,
    Shape.prm800k: prm800k,
    Shape.mr_gsm8k: mr_gsm8k,
}


def _others(row: Values, *read: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in read}


def _value(row: Values, key: str) -> Any:
    if key not in row:
        raise DataError(f"the row has no '{key}'; each line needs it")
    return row[key]


def _text(row: Values, key: str) -> str:
    text = _value(row, key)
    if not isinstance(text, str):
        raise DataError(f"'{key}' must be text")
    return text


def _texts(row: Values, key: str) -> list[str]:
    texts = _value(row, key)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"'{key}' must be a non-empty list of texts")
    return texts


def _object(row: Values, key: str) -> dict[str, Any]:
    value = _value(row, key)
    if not isinstance(value, dict):
        raise DataError(f"'{key}' must be an object")
    return value


def _flag(row: Values, key: str) -> bool:
    value = _value(row, key)
    if not isinstance(value, bool):
        raise DataError(f"'{key}' must be true or false")
    return value
