"""Finding the first wrong step: what is reported for each method, and how the step score is chosen."""

from typing import Any

import numpy as np
import pytest

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.reports.first_error import NO_SUCH_ERROR, choose_step_score, hits, report_first_error
from reasoning_irl.eval.scoring.methods import BY_NAME
from reasoning_irl.eval.traces.labelled_errors import ErrorSet, LabelledError, SteppedTrace
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION
from reasoning_irl.metrics.first_error import average_precision_of_step, first_error_hit
from reasoning_irl.metrics.summary import Summary
from reasoning_irl.metrics.traces import TokenValues, step_scores

STEPS = [1, 1, 2, 2]  # two steps of two tokens
Values = tuple[TokenValues, TokenValues]


def error(split: str, problem: int, step: int, step_ids: list[int] = STEPS, **more: Any) -> LabelledError:
    sequence = TokenSequence((1,), tuple(range(len(step_ids))))
    return LabelledError(f"p{problem}", split, sequence, step_ids, max(step_ids), step, **more)


def sound(split: str, problem: int, step_ids: list[int] = STEPS) -> SteppedTrace:
    return SteppedTrace(f"p{problem}", split, TokenSequence((1,), tuple(range(len(step_ids)))), step_ids, max(step_ids))


def reported(data: ErrorSet, values: dict[str, Values | None], note: str = "", **more: Any) -> dict[str, Any]:
    summary = Summary(30, 0)
    report_first_error(summary, "natural", data, values, note, **more)
    return summary.metrics


def second_step_wrong(has_validation_sound: bool) -> dict[str, Any]:
    """Reports for four problems per split whose second step is wrong: a perfect score and a constant one."""
    errors = [error(split, i, 2) for split in (VALIDATION, TEST) for i in range(4)]
    splits = (VALIDATION, TEST) if has_validation_sound else (TEST,)
    intact = [sound(split, i) for split in splits for i in range(4)]
    perfect = [[1.0, 1.0, -1.0, -1.0]] * 8, [[1.0] * 4] * len(intact)
    constant = [[0.0] * 4] * 8, [[0.0] * 4] * len(intact)
    return reported(ErrorSet(errors, intact), {"reward": perfect, "logprob": constant, "frozen": None})


def random_set(n: int = 60) -> tuple[ErrorSet, dict[str, Values | None]]:
    """Errors and sound traces with 1 to 4 steps, and two random scores of their tokens."""
    rng = np.random.default_rng(0)
    data = ErrorSet()
    values: dict[str, Values] = {"reward": ([], []), "logprob": ([], [])}
    for number in range(n):
        step_ids = [step for step in range(1, int(rng.integers(2, 6))) for _ in range(int(rng.integers(1, 4)))]
        split = VALIDATION if number % 3 == 0 else TEST
        is_error = rng.random() < 0.6
        if is_error:
            data.errors.append(error(split, number // 4, int(rng.integers(1, max(step_ids) + 1)), step_ids))
        else:
            data.sound.append(sound(split, number // 4, step_ids))
        for of_errors, of_sound in values.values():
            (of_errors if is_error else of_sound).append(rng.normal(size=len(step_ids)).tolist())
    return data, {**values}


def test_perfect_score_finds_every_error_and_constant_score_is_at_chance() -> None:
    found = second_step_wrong(has_validation_sound=True)
    for metric in ("hit@1", "hit@3", "map", "token_auroc", "accuracy"):
        assert found[f"reward/first_error_{metric}/natural"] == 1.0
    assert found["reward/processbench_f1/natural"] == found["reward/sound_accuracy/natural"] == 1.0
    for metric in ("hit@1", "map", "token_auroc"):
        assert found[f"logprob/first_error_{metric}/natural"] == found[f"chance/first_error_{metric}/natural"]
    # No threshold on a constant is right about both errors and sound traces.
    assert found["logprob/processbench_f1/natural"] == 0.0
    assert found["chance/processbench_f1/natural"] == pytest.approx(1 / 3)


def test_rules_that_read_no_text_are_reported() -> None:
    data = ErrorSet([error(TEST, i, step) for i, step in enumerate([1, 1, 2, 2, 2])])
    found = reported(data, {"reward": ([[0.0] * 4] * 5, [])})
    assert found["first_step/first_error_hit@1/natural"] == pytest.approx(2 / 5)
    assert found["last_step/first_error_hit@1/natural"] == pytest.approx(3 / 5)
    assert found["reward_minus_last_step/first_error_hit@1/natural"] == pytest.approx(1 / 2 - 3 / 5)
    assert "first_step/first_error_map/natural" not in found


def test_reported_metrics_are_means_of_the_plain_metrics_over_test_errors() -> None:
    data, values = random_set()
    found = reported(data, values)
    for method in ("reward", "logprob"):
        how, known = found[f"choice/{method}/step_score/natural"], values[method]
        assert known is not None
        at_hits, precisions = [], []
        for labelled, of_tokens in zip(data.errors, known[0], strict=True):
            if labelled.split == TEST:
                scores = step_scores(of_tokens, labelled.step_ids, how)
                at_hits.append(first_error_hit(scores, labelled.step))
                precisions.append(average_precision_of_step(scores, labelled.step))
        assert found[f"{method}/first_error_hit@1/natural"] == pytest.approx(np.mean(at_hits))
        assert found[f"{method}/first_error_map/natural"] == pytest.approx(np.mean(precisions))
        assert found["n_natural"] == len(at_hits)
    difference = found["reward/first_error_map/natural"] - found["logprob/first_error_map/natural"]
    assert found["reward_minus_logprob/first_error_map/natural"] == pytest.approx(difference)


def test_test_labels_choose_neither_step_score_nor_threshold() -> None:
    """Trap: a threshold or a step score that is tuned on the traces it is measured on."""
    data, values = random_set()
    relabelled = [
        error(TEST, i, 1 + e.step % e.n_steps, e.step_ids) if e.split == TEST else e for i, e in enumerate(data.errors)
    ]
    first, second = reported(data, values), reported(ErrorSet(relabelled, data.sound), values)
    choices = {key: value for key, value in first.items() if key.startswith("choice/")}
    assert any(key.endswith("/threshold") for key in choices)
    assert {key: second[key] for key in choices} == choices
    assert first["reward/first_error_hit@1/natural"] != second["reward/first_error_hit@1/natural"]


def test_step_score_is_chosen_on_validation() -> None:
    values = [[-5.0, 9.0, 1.0], [0.0, 0.0, 9.0]]  # step 1 has the lowest token, step 2 the lowest mean
    steps = [1, 1, 2]
    assert hits([error(TEST, 0, 1, steps)], values[:1], "min") == [1.0]
    assert hits([error(TEST, 0, 1, steps)], values[:1], "mean") == [0.0]
    assert choose_step_score([error(VALIDATION, 0, 1, steps), error(TEST, 0, 2, steps)], values)[0] == "min"
    assert choose_step_score([error(TEST, 0, 1, steps)], values)[1].startswith("default")


def test_without_sound_validation_traces_there_is_no_threshold() -> None:
    found = second_step_wrong(has_validation_sound=False)
    assert found["reward/processbench_f1/natural"] is None
    assert "validation split lacks" in found["reward/processbench_f1/natural/note"]
    assert "choice/reward/step_score/natural/threshold" not in found
    assert found["reward/first_error_hit@1/natural"] == 1.0


def test_errors_are_also_reported_by_kind_and_position() -> None:
    kinds = [PerturbationKind.operator_flip, PerturbationKind.nearby_answer, PerturbationKind.nearby_answer]
    errors = [error(TEST, i, step, kind=kind) for i, (step, kind) in enumerate(zip([1, 2, 2], kinds, strict=True))]
    values = [[-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]
    found = reported(ErrorSet(errors), {"reward": (values, [])})
    groups = {"operator_flip": (1, 1.0), "nearby_answer": (2, 0.5), "early": (1, 1.0), "late": (2, 0.5)}
    for group, (n, hit) in groups.items():
        assert found[f"n_natural/{group}"] == n
        assert found[f"reward/first_error_hit@1/natural/{group}"] == hit
    assert found["n_natural/middle"] == 0
    assert found["reward/first_error_hit@1/natural/middle"] is None
    assert found["reward/first_error_hit@1/natural/middle/note"] == NO_SUCH_ERROR


def test_token_auroc_is_about_the_edited_tokens_if_they_are_known() -> None:
    values = ([[0.0, 1.0, 1.0, 1.0]], [])
    of_step = reported(ErrorSet([error(TEST, 0, 1)]), {"reward": values})
    of_edit = reported(ErrorSet([error(TEST, 0, 1, edited=(0,))]), {"reward": values})
    assert of_step["reward/first_error_token_auroc/natural"] == 0.75
    assert of_edit["reward/first_error_token_auroc/natural"] == 1.0


def test_methods_without_values_say_what_they_need() -> None:
    data = ErrorSet([error(TEST, 0, 2)])
    values: dict[str, Values | None] = {"reward": ([[0.0] * 4], []), "frozen": None, "other": None}
    found = reported(data, values, not_scored={"other": "not in the file"})
    assert found["frozen/first_error_map/natural/note"] == BY_NAME["frozen"].not_scored
    assert found["other/first_error_map/natural/note"] == "not in the file"


def test_without_errors_every_metric_gives_the_reason() -> None:
    found = reported(ErrorSet(), {"reward": ([], [])}, note="undefined: nobody looked")
    assert found["n_natural"] == found["n_natural_sound"] == 0
    for method in ("reward", "chance", "last_step"):
        assert found[f"{method}/first_error_hit@1/natural"] is None
        assert found[f"{method}/first_error_hit@1/natural/note"] == "undefined: nobody looked"
