"""evaluate_irl.py end to end: what it writes, what it skips and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_irl.config.schema import Granularity, RewardHead
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.reports.reranking import AGGREGATION_CHOICES
from reasoning_irl.metrics.first_error import POSITIONS
from reasoning_irl.metrics.summary import Metrics
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import RewardModel, RewardSpec, build_reward_model, load_reward_model
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.configs import eval_config, irl_config
from tests.helpers.traces import (
    BROKEN_ROWS,
    GOOD,
    PROCESSBENCH,
    QUESTION,
    RIGHT,
    foreign_rows,
    read_rows,
    write_rows,
)

TOKENIZER = build_tokenizer(40)


def score_file(reward: Path, traces: Path, out: Path, *overrides: str) -> Metrics:
    """Scores a traces file without a run."""
    given = ("run_dir=null", f"model.reward_path={reward}", f"eval.traces={traces}", f"output_dir={out}")
    return run_irl_evaluation(irl_config(*given, *overrides))


# A run, and files of other programs


def test_scores_the_samples_of_a_run_in_place(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    before = run_evaluation(eval_config(f"run_dir={run}"))
    rows = read_rows(run / "traces.jsonl")
    # The tiny policy is never right: label every other trace as right, so that there are two classes.
    for number, row in enumerate(rows):
        row |= {"correct": number % 2 == 0, "mine": number, "first_error_step": 1 if number % 2 else None}
    write_rows(run / "traces.jsonl", rows)

    metrics = run_irl_evaluation(irl_config(f"run_dir={run}"))

    scored = read_rows(run / "traces.jsonl")
    assert [row["mine"] for row in scored] == list(range(14))
    assert [row["token_ids"] for row in scored] == [row["token_ids"] for row in rows]
    assert all(len(row["token_rewards"]) == len(row["tokens"]) for row in scored)
    assert all(isinstance(row["score"], float) for row in scored)
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert metrics["pass@1"] == before["pass@1"]
    assert "</html>" in (run / "report.html").read_text()
    for method in ("reward", "frozen", "logprob", "length", "random"):
        assert metrics[f"{method}/rerank@1|2"] is not None
    for method in ("reward", "frozen", "logprob"):
        for name in ("auroc", "auroc_within_prompt", "first_error_hit@1/planted", "length_correlation"):
            assert metrics[f"{method}/{name}/low"] <= metrics[f"{method}/{name}"] <= metrics[f"{method}/{name}/high"]
        assert metrics[f"choice/{method}/aggregation"] in AGGREGATION_CHOICES
    assert metrics["random/rerank@1|2"] == 0.5
    assert metrics["n_planted"] == 4
    assert metrics["n_natural"] + metrics["n_natural_left_out"] == 4
    assert metrics["curve/n"] == [1, 2]
    for name in ("auprc", "ece", "brier", "partial_correlation", "first_error_map/planted", "processbench_f1/planted"):
        assert metrics[f"reward/{name}/low"] <= metrics[f"reward/{name}/high"]
    assert metrics["entropy/auroc"] is not None
    assert (metrics["random/auroc"], metrics["oracle/auroc"], metrics["oracle/auprc"]) == (0.5, 1.0, 1.0)
    assert metrics["random/auprc"] == 0.5
    assert metrics["random/brier"] == pytest.approx(0.25, abs=0.01)
    assert metrics["random/rerank@1|2/high"] == 0.5
    assert len(metrics["calibration/reward/bin_accuracy_low"]) == 10
    assert sum(metrics["calibration/reward/bin_count"]) == 8
    assert len(metrics["position/reward/wrong"]) == 10
    kinds = [key for key in metrics if key.startswith("n_planted/") and key.split("/")[1] not in POSITIONS]
    assert sum(metrics[kind] for kind in kinds) == sum(metrics[f"n_planted/{place}"] for place in POSITIONS) == 4
    assert metrics["chance/first_error_token_auroc/planted"] == 0.5
    assert metrics["reward_minus_random/rerank@1|2/verdict"] in ("better", "worse", "cannot tell")
    # The run's reward model is untrained, so it equals the frozen baseline.
    assert metrics["reward/auroc"] == metrics["frozen/auroc"]
    # An untrained likelihood head is the policy's log-probability plus a constant.
    assert metrics["reward/auroc"] == pytest.approx(metrics["logprob/auroc"])

    again = run_irl_evaluation(irl_config(f"run_dir={run}"))
    assert again == metrics


def test_reward_model_is_then_read_as_the_evaluation_chose(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    rows = foreign_rows()
    questions, completions = [row["question"] for row in rows], [row["completion"] for row in rows]
    before = RewardModel.from_run(run).score_batch(questions, completions)
    assert before[0].aggregation == "mean"
    # Right is what a low reward at one token decides, so that the choice is not the default.
    lowest = [min(scored.rewards) for scored in before]
    for row, value in zip(rows, lowest, strict=True):
        row["correct"] = bool(value > np.median(lowest))
    file = write_rows(tmp_path / "rows.jsonl", rows)
    metrics = run_irl_evaluation(irl_config(f"run_dir={run}", f"eval.traces={file}", "eval.n_planted=0"))
    assert metrics["choice/reward/aggregation"] != "mean"
    moved = run.rename(tmp_path / "moved")
    expected = pytest.approx([row["score"] for row in read_rows(moved / "traces.jsonl")], abs=1e-5)
    for name in (moved, moved / "checkpoint-10", moved / "checkpoint-10/reward_model"):
        scored = RewardModel.from_run(name).score_batch(questions, completions, batch_size=5)
        assert {one.aggregation for one in scored} == {metrics["choice/reward/aggregation"]}
        assert [one.total for one in scored] == expected
    # Nothing that training goes on from has changed, and what was chosen for another model is not this one's.
    assert load_reward_model(moved / "checkpoint-10/reward_model").spec.reading is None
    (moved / "checkpoint-10").rename(moved / "checkpoint-20")
    assert RewardModel.from_run(moved).score("How many?", RIGHT).aggregation == "mean"


def test_file_of_another_program_needs_three_keys_and_no_run(
    reward_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "foreign.jsonl", foreign_rows())
    metrics = score_file(reward_folder, file, tmp_path / "out")
    assert (metrics["n_test_problems"], metrics["n_validation_problems"]) == (6, 2)
    assert metrics["reward/auroc"] is not None
    assert metrics["majority@3"] == 0.0
    assert metrics["oracle@3"] == 1.0
    assert metrics["random/rerank@1|3"] == pytest.approx(1 / 3)
    assert metrics["logprob/auroc"] is None
    assert metrics["logprob/auroc/note"] == "not scored: it needs model.policy_path, or token_logprobs in the file"
    assert metrics["reward/first_error_hit@1/planted"] is None
    assert "run_dir" in metrics["reward/first_error_hit@1/planted/note"]
    assert metrics["reward/first_error_hit@1/natural"] is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 test problems, supervision: not declared; 95 % intervals over problems"
    titles = [line for line, above in zip(lines[1:], lines, strict=False) if not above]
    assert [title.split(",")[0] for title in titles] == [
        "Share of problems answered right",
        "Telling right traces from wrong ones (higher is better)",
        "Calibration (lower is better)",
        "The reward minus each baseline (not corrected for multiple comparisons)",
        "Undefined",
    ]
    assert len(read_rows(file)[0]) == 3  # the file itself is unchanged
    with pytest.raises(UserError, match="already exists"):
        score_file(reward_folder, file, tmp_path / "out")


def benchmark_rows(n: int = 24) -> list[dict[str, Any]]:
    """ProcessBench rows: two solutions per problem, of which one is sound."""
    rows = []
    for number in range(n):
        label = -1 if number % 2 else number % 3
        row = {**PROCESSBENCH, "id": f"gsm8k-{number}", "label": label, "final_answer_correct": label < 0}
        rows.append({**row, "problem": QUESTION.replace("4", str(4 + number // 2))})
    return rows


def test_benchmark_is_scored_and_its_scored_file_can_be_scored_again(reward_folder: Path, tmp_path: Path) -> None:
    file, out = write_rows(tmp_path / "t.jsonl", benchmark_rows()), tmp_path / "out"
    metrics = score_file(reward_folder, file, out)
    # The two solutions of a problem are in the same split, although each has its own id.
    assert metrics["n_test_problems"] + metrics["n_validation_problems"] == 12
    assert metrics["n_natural"] == metrics["n_natural_sound"] == metrics["n_test_problems"]
    assert metrics["chance/first_error_hit@1/natural"] == pytest.approx(1 / 3)
    for name in ("first_error_hit@1", "first_error_accuracy", "processbench_f1"):
        assert metrics[f"reward/{name}/natural"] is not None
    assert [row["source_id"] for row in read_rows(out / "traces.jsonl")] == [f"gsm8k-{number}" for number in range(24)]
    again = score_file(reward_folder, out / "traces.jsonl", tmp_path / "again")
    assert again["reward/processbench_f1/natural"] == metrics["reward/processbench_f1/natural"]


def test_missing_traces_file_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluate\.py"):
        run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={tmp_path}"))


# Rows that cannot be scored


def test_skipped_rows_are_listed_and_change_nothing_else(
    reward_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = foreign_rows()
    file = write_rows(tmp_path / "t.jsonl", [*rows[:5], *(row for row, _ in BROKEN_ROWS), *rows[5:]])
    with pytest.raises(DataError, match=r"t\.jsonl:6: the trace has no 'completion'"):
        score_file(reward_folder, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    metrics = score_file(reward_folder, file, tmp_path / "out", "eval.on_error=skip")
    printed = capsys.readouterr().out
    skipped = read_rows(tmp_path / "out/skipped.jsonl")
    assert [row["line"] for row in skipped] == list(range(6, 6 + len(BROKEN_ROWS)))
    for row, (_, reason) in zip(skipped, BROKEN_ROWS, strict=True):
        assert reason in row["reason"]
    assert metrics["n_skipped"] == len(BROKEN_ROWS)
    assert f"{len(BROKEN_ROWS)} rows of {file} (line 6: the trace has no 'completion'; each line needs it)" in printed
    kept = read_rows(tmp_path / "out/traces.jsonl")
    assert [{key: row[key] for key in GOOD} for row in kept] == rows
    # Without the broken rows, everything is the same.
    clean = write_rows(tmp_path / "clean.jsonl", rows)
    same = {**metrics, "n_skipped": 0, "choice/reward/traces": str(clean)}
    assert score_file(reward_folder, clean, tmp_path / "clean") == same
    assert not (tmp_path / "clean/skipped.jsonl").exists()


def test_scoring_in_place_never_loses_rows(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    file = write_rows(run / "traces.jsonl", [*foreign_rows(2), "{broken"])
    before = file.read_text()
    with pytest.raises(UserError, match=r"would lose 1 row of .*line 7: .*set another output_dir=FOLDER"):
        run_irl_evaluation(irl_config(f"run_dir={run}", "eval.on_error=skip"))
    assert file.read_text() == before


def test_empty_completion_is_scored_at_its_end_token_and_counted(run_dir: Path, tmp_path: Path) -> None:
    """Trap: leaving out a sample that ended at once makes its problem look as if it had fewer samples."""
    file = write_rows(tmp_path / "t.jsonl", [*foreign_rows(), {**GOOD, "completion": "", "correct": False}])
    out = tmp_path / "out"
    metrics = run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={out}", f"eval.traces={file}"))
    assert (metrics["n_empty"], metrics["n_skipped"]) == (1, 0)
    scored = read_rows(out / "traces.jsonl")[-1]
    assert (scored["tokens"], len(scored["token_rewards"])) == ([""], 1)
    assert np.isfinite(scored["score"])


def test_trace_longer_than_the_window_is_named_before_any_model_loads(run_dir: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(run_dir / "checkpoint-10", checkpoint)
    positions = json.loads((checkpoint / "reward_model/config.json").read_text())["max_position_embeddings"]
    long = {**GOOD, "question": QUESTION, "completion": "<think>\n" + "3 + 4 = 7\n" * positions}
    file = write_rows(tmp_path / "t.jsonl", [*foreign_rows(), long])
    metrics = score_file(checkpoint / "reward_model", file, tmp_path / "out", "eval.on_error=skip")
    assert metrics["n_skipped"] == 1
    assert read_rows(tmp_path / "out/skipped.jsonl")[0]["line"] == 25
    (checkpoint / "reward_model/model.safetensors").unlink()  # loading a model would raise another error
    with pytest.raises(DataError, match=r"t\.jsonl:25: prompt and completion have \d+ tokens, more than .* window of"):
        score_file(checkpoint / "reward_model", file, tmp_path / "other")


def test_non_finite_reward_is_an_error(run_dir: Path, tmp_path: Path) -> None:
    """Trap: a NaN score silently loses or wins every comparison."""
    shutil.copytree(run_dir / "checkpoint-10", tmp_path / "broken")
    model = load_reward_model(tmp_path / "broken/reward_model")
    with torch.no_grad():
        next(parameter for parameter in model.parameters() if parameter.ndim == 2)[:] = float("nan")
    model.save(tmp_path / "broken/reward_model")
    file = write_rows(tmp_path / "foreign.jsonl", foreign_rows())
    with pytest.raises(
        DataError, match=r"foreign\.jsonl:1: the reward \(problem 'Tom has 3 .* is nan at token 1: check"
    ):
        score_file(tmp_path / "broken/reward_model", file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trace_with_a_non_finite_reward_is_skipped_with_all_its_values(run_dir: Path, tmp_path: Path) -> None:
    """Trap: values of a skipped trace that are taken for those of the next one."""
    shutil.copytree(run_dir / "checkpoint-10", tmp_path / "checkpoint")
    folder = tmp_path / "checkpoint/reward_model"
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 1)
    model = build_reward_model(str(tmp_path / "checkpoint"), spec, TOKENIZER)
    embedding = model.backbone.get_input_embeddings().weight
    with torch.no_grad():
        embedding[TOKENIZER.convert_tokens_to_ids("9")] = float("nan")
    model.save(folder)
    rows = foreign_rows()
    bad = {**GOOD, "question": QUESTION.replace("4", "40"), "completion": RIGHT.replace("7", "9")}
    file = write_rows(tmp_path / "t.jsonl", [*rows[:4], bad, *rows[4:]])
    with_nine = [row for row in rows if "9" in row["question"]]
    assert with_nine  # a question may contain the broken token too
    metrics = score_file(folder, file, tmp_path / "out", "eval.batch_size=1", "eval.on_error=skip")
    skipped = read_rows(tmp_path / "out/skipped.jsonl")
    assert skipped[0]["line"] == 5
    assert "the reward (problem" in skipped[0]["reason"]
    assert metrics["n_skipped"] == 1 + len(with_nine)
    clean = write_rows(tmp_path / "clean.jsonl", [row for row in rows if row not in with_nine])
    score_file(folder, clean, tmp_path / "clean", "eval.batch_size=1")
    kept, expected = (read_rows(tmp_path / name / "traces.jsonl") for name in ("out", "clean"))
    for row, other in zip(kept, expected, strict=True):
        assert (row["completion"], row["token_rewards"]) == (other["completion"], other["token_rewards"])


# Labels of one class, or none


def test_labels_of_one_class_leave_metrics_undefined_with_a_reason(
    reward_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, correct in (("right", True), ("wrong", False)):
        rows = [{**row, "correct": correct, "id": f"p{at // 3}"} for at, row in enumerate(foreign_rows())]
        score_file(reward_folder, write_rows(tmp_path / f"{name}.jsonl", rows), tmp_path / name)
        text = (tmp_path / name / "metrics.json").read_text()
        metrics = json.loads(text)
        assert "NaN" not in text
        for metric in ("auroc", "auroc_within_prompt", "auprc", "ece", "brier", "correlation"):
            assert metrics[f"reward/{metric}"] is None
            assert metrics[f"reward/{metric}/low"] is None
            assert metrics[f"reward/{metric}/note"].startswith("undefined: ")
            minus = f"reward_minus_length/{metric}"
            if minus in metrics:
                assert metrics[minus] is None
                assert f"{minus}/verdict" not in metrics
        assert metrics["reward/rerank@1|3"] == float(correct)
        assert metrics["choice/reward/aggregation/by"].startswith("default")
        assert "reward/auroc" in capsys.readouterr().out.split("Undefined\n")[1]


def test_run_without_its_own_problems_in_the_file_plants_errors_in_its_test_data(run_dir: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "wrong.jsonl", [{**row, "correct": False} for row in foreign_rows(3)])
    out = tmp_path / "out"
    metrics = run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={out}", f"eval.traces={file}"))
    assert metrics["n_planted"] == 4
    assert metrics["logprob/rerank@1|3"] == 0.0


def test_unlabelled_traces_are_scored(run_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "correct": None} for row in foreign_rows()]
    file, out = write_rows(tmp_path / "t.jsonl", rows), tmp_path / "out"
    metrics = run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={out}", f"eval.traces={file}"))
    assert metrics["n_unlabelled"] == len(rows)
    assert metrics["reward/rerank@1"] is None
    assert metrics["reward/auroc"] is None
    assert all(np.isfinite(row["score"]) for row in read_rows(out / "traces.jsonl"))
