"""Rows of traces files and data sets, and traces made of them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.traces.trace_file import TEST, Trace
from reasoning_irl.text.trace import format_trace, step_spans

QUESTION = "Tom has 3 apples. Tom finds 4 more. How many apples are there now?"
RIGHT = "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>"
WRONG = "<think>\n3 + 4 = 8\n</think>\n<answer>\n8\n</answer>"


def write_rows(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    """Writes a JSON lines file; a row that is already text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def foreign_rows(n_problems: int = 8) -> list[dict[str, Any]]:
    """Rows with only the three required keys: per problem, one right and two wrong samples."""
    return [
        {"question": QUESTION.replace("4", str(4 + n)), "completion": completion, "correct": completion == RIGHT}
        for n in range(n_problems)
        for completion in (RIGHT, WRONG, WRONG)
    ]


def made_trace(problem: str, split: str, correct: bool | None, steps: list[int], **row: Any) -> Trace:
    """A trace with one token per entry of `steps`, the step of each token; `row` is added to the file's row."""
    sequence = TokenSequence((1,), tuple(range(len(steps))))
    return Trace({"completion": "", **row}, problem, split, correct, sequence, [""] * len(steps), steps, max(steps))


def answered_trace(problem: str, answer: int, n_tokens: int = 5) -> Trace:
    """A test trace that is right if it answers 0; with an answer of 3 it has no tags, so it answers nothing."""
    completion = "no format" if answer == 3 else format_trace("1", str(answer))
    return made_trace(problem, TEST, answer == 0, [1] * n_tokens, completion=completion, question="?")


def scored_row(index: int, **changes: Any) -> dict[str, Any]:
    """A row of a scored traces file; those with an odd index are wrong in their second step."""
    text = format_trace(f"2 + 2 = 4\n4 * {index} = 13", "13")
    tokens = re.findall(r"\s*\S", text)
    is_right = index % 2 == 0
    return {
        "id": f"problem-{index}",
        "question": f"What is question {index}?",
        "completion": text,
        "sample": 0,
        "answer": "13",
        "reference": "12",
        "correct": is_right,
        "steps": [text[slice(*span)] for span in step_spans(text)],
        "first_error_step": None if is_right else 2,
        "tokens": tokens,
        "token_rewards": np.linspace(-1, 1, len(tokens)).tolist(),
        "score": index / 10,
        **changes,
    }


GOOD = foreign_rows(1)[0]
# Rows that cannot be scored, and part of the reason.
BROKEN_ROWS: list[tuple[dict[str, Any] | str, str]] = [
    ({"question": "q", "correct": True}, "the trace has no 'completion'"),
    ({"question": "q", "completion": "c"}, "the trace has no 'correct'"),
    ({"completion": "c", "correct": True}, "the trace has no 'question'"),
    ({**GOOD, "correct": "yes"}, "'correct' must be true, false or null"),
    ({**GOOD, "completion": 7}, "'completion' is a int"),
    ({**GOOD, "prompt": []}, "'prompt' must be text, or a list of chat messages"),
    ({**GOOD, "prompt": [{"role": "user"}]}, "'prompt' must be text, or a list of chat messages"),
    ({**GOOD, "split": "train"}, "'split' must be validation or test"),
    ({**GOOD, "answer_kind": "essay"}, "'answer_kind' must be"),
    ({**GOOD, "first_error_step": 0}, "'first_error_step' must be a step number, from 1"),
    ({**GOOD, "first_error_step": 1, "sound": True}, "'sound' says that no step is wrong"),
    ({**GOOD, "steps": "3 + 4 = 7"}, "'steps' must be a list of texts"),
    ({**GOOD, "token_ids": ["3"]}, "'token_ids' must be a list of whole numbers"),
    ({**GOOD, "completion": "", "truncated": True}, "'completion' is empty and truncated"),
    ({**GOOD, "steps": ["3 + 4", "5 + 5"], "first_error_step": 1}, "does not contain the texts of 'steps'"),
    ("{broken", "not valid JSON"),
    ('{"question": "q", "completion": "c", "correct": true, "logprob": NaN}', "contains NaN, which is not valid JSON"),
    ("[1]", "JSON list"),
]
PROCESSBENCH: dict[str, Any] = {
    "id": "gsm8k-0",
    "generator": "some model",
    "problem": "How many are 12 and 30?",
    "steps": ["I add.\nFirst the tens.", "12 + 30 = 43", "The answer is 43."],
    "final_answer_correct": False,
    "label": 1,
}
MR_GSM8K: dict[str, Any] = {
    "uuid": "a-1",
    "question": "How many are 12 and 30?",
    "ground_truth_solution": "12 + 30 = 42",
    "ground_truth_answer": "42",
    "model_output_steps": ["Step 1: 12 + 30 = 43", "Step 2: #### 42"],
    "model_output_answer_correctness": "correct",
    "model_output_solution_correctness": "wrong",
    "model_output_solution_first_error_step": 1,
    "model_output_solution_first_error_reason": "a slip",
    "question_type": "original",
}


def rated(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": None}


def labelled_step(completions: list[dict[str, Any]], chosen: int | None, human: Any = None) -> dict[str, Any]:
    return {"completions": completions, "human_completion": human, "chosen_completion": chosen}


def prm800k_row(steps: list[dict[str, Any]], reason: str, **question: Any) -> dict[str, Any]:
    problem = {"problem": "What is 6 x 7?", "ground_truth_answer": "42", "pre_generated_steps": None, **question}
    return {"labeler": "x", "question": problem, "label": {"steps": steps, "finish_reason": reason}}


FOUND = prm800k_row(
    [
        labelled_step([rated("6 x 7 is asked.", 0)], 0),
        labelled_step([rated("6 x 7 = 48", -1), rated("6 x 7 = 42", 1), rated("6 x 7 = 49", -1)], None),
    ],
    "found_error",
    pre_generated_steps=["6 x 7 is asked.", "6 x 7 = 48", "It is 48.\n\n# Answer\n\n48"],
    pre_generated_answer="48",
)
MEDREASON = {
    "dataset_name": "medmcqa",
    "id_in_dataset": 7,
    "question": "Which of these is a cause of a stroke:",
    "answer": "A clot. Explanation: A clot stops the flow. It may come from the heart.",
    "reasoning": "Finding reasoning paths:\n1. Clot -> Stroke\n\nReasoning Process:\n1. So.\n\nConclusion:\nA clot.",
    "options": "Answer Choices:\nA. A cold\nB. A clot\nC. A clot of\ncheese\nD. None",
}
