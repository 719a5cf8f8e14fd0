import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_irl.config.schema import EvalConfig
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.evaluate_irl import find_sources, run_irl_evaluation
from reasoning_irl.eval.reports.first_error import LabelledError, choose_step_score, hits, natural_errors
from reasoning_irl.eval.reports.page import balanced
from reasoning_irl.eval.reports.reranking import AGGREGATION_CHOICES, Reading, choose_reading, labelled
from reasoning_irl.eval.traces.trace_file import Trace, read_traces
from reasoning_irl.metrics.calibration import fit_platt
from reasoning_irl.metrics.first_error import POSITIONS
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.utils.errors import ConfigError, DataError, UserError
from tests.helpers.configs import compose_config
from tests.helpers.traces import RIGHT, foreign_rows, irl_config, read_rows, write_rows


def trace(problem: str, split: str, correct: bool | None, steps: list[int], **row: Any) -> Trace:
    sequence = TokenSequence((1,), tuple(range(len(steps))))
    return Trace({"completion": "", **row}, problem, split, correct, sequence, [""] * len(steps), steps, max(steps))


def test_scores_what_evaluate_wrote_in_place(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    sampling = ("sampling.n_samples=2", "eval.n_problems=4", "eval.n_validation=3", "eval.ks=[1]")
    sampled = compose_config("config_eval", EvalConfig, f"run_dir={run}", "eval.bootstrap_draws=20", *sampling)
    before = run_evaluation(sampled)
    rows = read_rows(run / "traces.jsonl")
    # The tiny policy is never right: say that some traces are, so that there is something to tell apart.
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
    # The untrained reward model is the frozen one.
    assert metrics["reward/auroc"] == metrics["frozen/auroc"]
    # With the likelihood head at its start, so is the policy's log-probability, but for a constant.
    assert metrics["reward/auroc"] == pytest.approx(metrics["logprob/auroc"])

    again = run_irl_evaluation(irl_config(f"run_dir={run}"))
    assert again == metrics


def test_a_foreign_file_needs_three_keys_and_no_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "foreign.jsonl", foreign_rows())
    reward = run_dir / "checkpoint-10/reward_model"
    config = irl_config(
        "run_dir=null", f"output_dir={tmp_path / 'out'}", f"model.reward_path={reward}", f"eval.traces={file}"
    )
    metrics = run_irl_evaluation(config)
    assert (metrics["n_test_problems"], metrics["n_validation_problems"]) == (6, 2)
    assert metrics["reward/auroc"] is not None
    assert metrics["majority@3"] == 0.0
    assert metrics["oracle@3"] == 1.0
    assert metrics["random/rerank@1|3"] == pytest.approx(1 / 3)
    assert metrics["logprob/auroc"] is None
    assert "no such model" in metrics["logprob/auroc/note"]
    assert metrics["reward/first_error_hit@1/planted"] is None
    assert "run_dir" in metrics["reward/first_error_hit@1/planted/note"]
    assert metrics["reward/first_error_hit@1/natural"] is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 test problems, supervision: not declared; 95 % intervals over problems"
    titles = [line for line, above in zip(lines[1:], lines, strict=False) if not above]
    assert [title.split(",")[0] for title in titles] == [
        "Right answers",
        "Telling right traces from wrong ones",
        "Calibration (lower is better)",
        "The reward less each baseline (each difference by itself)",
        "Undefined",
    ]
    assert len(read_rows(file)[0]) == 3  # the file itself stays as it was
    with pytest.raises(UserError, match="is there already"):
        run_irl_evaluation(config)


def test_traces_of_one_kind_have_no_auroc(run_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "correct": False} for row in foreign_rows(3)]
    file = write_rows(tmp_path / "wrong.jsonl", rows)
    metrics = run_irl_evaluation(
        irl_config(f"run_dir={run_dir}", f"output_dir={tmp_path / 'out'}", f"eval.traces={file}")
    )
    for name in ("reward/auroc", "reward/auroc_within_prompt", "length/auroc", "reward/auprc", "reward/ece"):
        assert metrics[name] is None
        assert metrics[f"{name}/note"].startswith("undefined")
    assert metrics["choice/reward/aggregation/by"].startswith("default")
    assert metrics["n_planted"] == 4  # other problems than the run's: its test data serves
    assert metrics["logprob/rerank@1|3"] == 0.0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"question": "q", "correct": True}, r"foreign\.jsonl:2: the trace has no 'completion'"),
        ({"question": "q", "completion": "c"}, r"foreign\.jsonl:2: the trace has no 'correct'"),
        ({"completion": "c", "correct": True}, r"foreign\.jsonl:2: the trace has no 'question'"),
        ({"question": "q", "completion": "c", "correct": "yes"}, r":2: 'correct' must be true, false or null"),
    ],
)
def test_a_broken_row_is_named(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "foreign.jsonl", [foreign_rows(1)[0], broken])
    with pytest.raises(DataError, match=message):
        read_traces(file, build_tokenizer(40), 0.3, 0)


def test_a_value_that_is_no_number_is_named(run_dir: Path, tmp_path: Path) -> None:
    """Trap: a NaN score loses every comparison, or wins it, without a word."""
    checkpoint = run_dir / "checkpoint-10"
    shutil.copytree(checkpoint, tmp_path / "broken")
    model = load_reward_model(tmp_path / "broken/reward_model")
    with torch.no_grad():
        next(parameter for parameter in model.parameters() if parameter.ndim == 2)[:] = float("nan")
    model.save(tmp_path / "broken/reward_model")
    file = write_rows(tmp_path / "foreign.jsonl", foreign_rows())
    config = irl_config(
        "run_dir=null",
        f"output_dir={tmp_path / 'out'}",
        f"model.reward_path={tmp_path / 'broken/reward_model'}",
        f"eval.traces={file}",
    )
    with pytest.raises(
        DataError, match=r"foreign\.jsonl:1: the reward \(problem 'Tom has 3 .* is nan at token 1: check"
    ):
        run_irl_evaluation(config)
    assert not (tmp_path / "out").exists()


def test_a_cut_off_trace_gets_no_end_token(tmp_path: Path) -> None:
    rows = foreign_rows(2)
    rows[0]["truncated"] = True
    tokenizer = build_tokenizer(40)
    cut_off, whole, *_ = read_traces(write_rows(tmp_path / "t.jsonl", rows), tokenizer, 0.0, 0)
    assert whole.sequence.completion_ids[-1] == tokenizer.eos_token_id
    assert cut_off.sequence.completion_ids[-1] != tokenizer.eos_token_id
    assert "".join(cut_off.pieces) == RIGHT


def test_missing_sources_are_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.reward_path"):
        find_sources(irl_config("run_dir=null", f"output_dir={tmp_path}"))
    with pytest.raises(DataError, match=r"evaluate\.py"):
        run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={tmp_path}"))


def test_the_aggregation_is_chosen_on_the_given_traces() -> None:
    traces = [trace("a", "validation", correct, [1, 1, 2]) for correct in (True, False)]
    data, places = labelled([trace("b", "test", True, [1]), *traces], "validation")
    assert places == [1, 2]
    values = [[0.0, 0.0, 1.0], [9.0, 9.0, 0.0]]  # only the last token tells right from wrong
    reading = choose_reading(values, data)
    assert (reading.aggregation, reading.by) == ("last", "auroc on validation")
    assert reading.scores(values, data.traces).tolist() == [1.0, 0.0]


def test_the_product_is_of_the_steps_calibrated_probabilities() -> None:
    traces = [
        trace("a", "validation", right, steps) for right, steps in ((True, [1, 2]), (False, [1, 1]), (False, [0]))
    ]
    data, _ = labelled(traces, "validation")
    values = [[2.0, 3.0], [-1.0, -3.0], [-5.0]]  # means of steps: 2 and 3, -2, and -5 of a trace without steps
    platt = fit_platt([2.0, 3.0, -2.0, -5.0], [1, 1, 0, 0])
    assert platt is not None
    p = platt.probabilities([2.0, 3.0, -2.0, -5.0])
    scores = Reading("product", "", platt).scores(values, data.traces)
    assert np.exp(scores) == pytest.approx([p[0] * p[1], p[2], p[3]])


def test_the_step_score_is_chosen_on_validation_alone() -> None:
    def error(split: str, step: int) -> LabelledError:
        return LabelledError("a", split, TokenSequence((1,), (1, 2, 3)), [1, 1, 2], 2, step)

    values = [[-5.0, 9.0, 1.0], [0.0, 0.0, 9.0]]  # step 1 has the lowest token, step 2 the lowest mean
    assert hits([error("test", 1)], values[:1], "min") == [1.0]
    assert hits([error("test", 1)], values[:1], "mean") == [0.0]
    assert choose_step_score([error("validation", 1), error("test", 2)], values)[0] == "min"
    assert choose_step_score([error("test", 1)], values)[1].startswith("default")


def test_errors_at_a_step_that_no_token_shows_are_left_out_and_counted() -> None:
    traces = [
        trace("a", "test", False, [1, 0, 2], first_error_step=2),
        trace("a", "test", False, [1, 0, 2], first_error_step=3),
        trace("a", "validation", False, [1, 0, 2], first_error_step=3),
        trace("a", "test", True, [1, 0, 2]),
    ]
    source, at_errors, at_sound, left_out = natural_errors(traces)
    assert (at_errors, at_sound, left_out) == ([0], [3], 1)
    assert source.errors[0].wrong == [False, False, True]


def test_the_report_shows_right_and_wrong_traces_alike() -> None:
    rows = [{"correct": number < 2} for number in range(10)]
    assert sum(row["correct"] for row in balanced(rows, 4, 0)) == 2
    assert sum(row["correct"] for row in balanced(rows, 8, 0)) == 2
    assert len(balanced(rows, 8, 0)) == 8
    assert balanced(rows, 0, 0) == []
