"""Rows of traces files and data sets, and the config that evaluates them."""

import json
from pathlib import Path
from typing import Any

from reasoning_irl.config.schema import IRLEvalConfig
from tests.helpers.configs import compose_config

QUESTION = "Tom has 3 apples. Tom finds 4 more. How many apples are there now?"
RIGHT = "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>"
WRONG = "<think>\n3 + 4 = 8\n</think>\n<answer>\n8\n</answer>"


def irl_config(*overrides: str) -> IRLEvalConfig:
    small = ("eval.n_planted=4", "eval.bootstrap_draws=20", "eval.batch_size=9", "eval.report_traces=6")
    return compose_config("config_irl_eval", IRLEvalConfig, *small, *overrides)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def foreign_rows(n_problems: int = 8) -> list[dict[str, Any]]:
    """What another program writes: three keys."""
    return [
        {"question": QUESTION.replace("4", str(4 + n)), "completion": completion, "correct": completion == RIGHT}
        for n in range(n_problems)
        for completion in (RIGHT, WRONG, WRONG)
    ]


GOOD = foreign_rows(1)[0]
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
