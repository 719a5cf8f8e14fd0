"""Rows of published benchmarks, in the formats that their own documentation shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reasoning_irl.eval.traces.benchmarks import Shape, mr_gsm8k, plain, prm800k, processbench, shape_of, to_plain
from reasoning_irl.eval.traces.trace_file import check_row
from reasoning_irl.utils.errors import DataError
from tests.helpers.traces import FOUND, MR_GSM8K, PROCESSBENCH, labelled_step, prm800k_row, rated


def test_formats_are_recognised_by_their_keys() -> None:
    for row, shape in (
        (PROCESSBENCH, Shape.processbench),
        (MR_GSM8K, Shape.mr_gsm8k),
        (FOUND, Shape.prm800k),
        ({"question": "q", "completion": "c", "correct": True}, Shape.plain),
        ({"question": "q", "steps": ["a"], "first_error_step": None}, Shape.plain),
        ({"question": "q"}, None),
    ):
        assert shape_of(row) == shape
    # Converted rows are in our format.
    for row in (processbench(PROCESSBENCH), mr_gsm8k(MR_GSM8K), prm800k(FOUND)):
        assert shape_of(row) == Shape.plain
        assert plain(row) == row
        check_row(row)


def test_processbench_labels_count_from_zero_and_its_ids_name_solutions() -> None:
    row = processbench(PROCESSBENCH)
    assert row["first_error_step"] == 2
    assert row["completion"] == "I add.\nFirst the tens.\n\n12 + 30 = 43\n\nThe answer is 43."
    assert (row["correct"], row["sound"], row["question"]) == (False, False, "How many are 12 and 30?")
    assert "id" not in row
    assert (row["source_id"], row["generator"]) == ("gsm8k-0", "some model")
    # No wrong step but a wrong answer, and the reverse.
    sound = processbench({**PROCESSBENCH, "label": -1})
    assert (sound["first_error_step"], sound["sound"], sound["correct"]) == (None, True, False)
    lucky = processbench({**PROCESSBENCH, "label": 0, "final_answer_correct": True})
    assert (lucky["first_error_step"], lucky["sound"], lucky["correct"]) == (1, False, True)


def test_mr_gsm8k_labels_answer_and_solution_separately() -> None:
    row = mr_gsm8k(MR_GSM8K)
    assert (row["first_error_step"], row["correct"], row["sound"]) == (1, True, False)
    assert row["completion"] == "Step 1: 12 + 30 = 43\nStep 2: #### 42"
    right = {"model_output_solution_correctness": "correct", "model_output_solution_first_error_step": "N/A"}
    assert (mr_gsm8k({**MR_GSM8K, **right})["first_error_step"], mr_gsm8k({**MR_GSM8K, **right})["sound"]) == (
        None,
        True,
    )
    assert mr_gsm8k({**MR_GSM8K, "model_output_solution_first_error_step": " 2 "})["first_error_step"] == 2
    without = {key: value for key, value in MR_GSM8K.items() if key != "model_output_answer_correctness"}
    assert mr_gsm8k(without)["correct"] is False


def test_prm800k_solution_labelled_up_to_its_error_is_kept_whole() -> None:
    """Trap: if the solution ended at its label, the wrong step would always be the last one."""
    row = prm800k(FOUND)
    assert row["steps"] == FOUND["question"]["pre_generated_steps"]
    assert (row["first_error_step"], row["correct"], row["sound"]) == (2, False, False)
    assert (row["question"], row["labeler"]) == ("What is 6 x 7?", "x")
    lucky = prm800k_row(FOUND["label"]["steps"], "found_error", **{**FOUND["question"], "pre_generated_answer": "42"})
    assert (prm800k(lucky)["correct"], prm800k(lucky)["sound"]) == (True, False)


def test_prm800k_without_a_solution_follows_the_path_of_the_labeller() -> None:
    steps = [
        labelled_step([rated("a wrong start", -1), rated("a start", 1)], 1),
        labelled_step([rated("nonsense", -1)], None, {"text": "their own step", "rating": None}),
        labelled_step([rated("6 x 7 = 42", 1)], 0),
    ]
    row = prm800k(prm800k_row(steps, "solution"))
    assert row["steps"] == ["a start", "their own step", "6 x 7 = 42"]
    assert (row["first_error_step"], row["correct"], row["sound"]) == (None, True, True)

    wrong = [*steps[:1], labelled_step([rated("all right", 1), rated("6 x 7 = 40", -1)], None), steps[2]]
    row = prm800k(prm800k_row(wrong, "found_error"))
    assert row["steps"] == ["a start", "6 x 7 = 40"]  # the path ends where nothing was chosen
    assert (row["first_error_step"], row["correct"], row["sound"]) == (2, None, False)

    given_up = prm800k(prm800k_row(wrong, "give_up"))
    assert (given_up["first_error_step"], given_up["correct"], given_up["sound"]) == (None, None, False)


def test_plain_rows_may_have_only_steps() -> None:
    row = plain({"question": "q", "steps": ["a", "b"], "first_error_step": 2})
    assert (row["completion"], row["correct"], row["sound"]) == ("a\nb", None, False)
    assert plain({"question": "q", "steps": ["a"], "first_error_step": None})["sound"] is True
    # With `correct`, a missing label may mean that nobody looked for a wrong step.
    labelled = {"question": "q", "completion": "a", "correct": False, "first_error_step": None}
    assert plain(labelled) == labelled


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: value for key, value in PROCESSBENCH.items() if key != "label"}, "no 'label'"),
        ({**PROCESSBENCH, "label": 3}, "'label' is 3; .*one of the 3 steps"),
        ({**PROCESSBENCH, "label": True}, "'label' is True"),
        ({**PROCESSBENCH, "steps": []}, "'steps' must be a non-empty list of texts"),
        ({**PROCESSBENCH, "final_answer_correct": "yes"}, "'final_answer_correct' must be true or false"),
        ({**MR_GSM8K, "model_output_solution_first_error_step": "N/A"}, "is 'N/A' in a wrong solution"),
        ({**MR_GSM8K, "model_output_solution_correctness": "perhaps"}, "must be correct or wrong"),
        (prm800k_row([labelled_step([rated("a", 1)], 1)], "solution"), "'chosen_completion' is 1 of 1 completions"),
        (prm800k_row([], "give_up"), "has no step"),
        (prm800k_row([labelled_step([{"rating": 1}], 0)], "solution"), "no 'text'"),
    ],
)
def test_rows_that_break_their_format_say_why(row: dict[str, Any], message: str) -> None:
    convert = {Shape.processbench: processbench, Shape.mr_gsm8k: mr_gsm8k, Shape.prm800k: prm800k}
    shape = shape_of(row)
    assert shape is not None
    with pytest.raises(DataError, match=message):
        convert[shape](row)


def test_examples_in_the_documentation_can_be_read() -> None:
    text = (Path(__file__).parents[3] / "docs/evaluation.md").read_text()
    rows = [
        json.loads(line) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    shapes = [shape_of(row) for row in rows]
    assert set(shapes) == set(Shape)
    for row, shape in zip(rows, shapes, strict=True):
        assert shape is not None
        check_row(to_plain(row, shape))
