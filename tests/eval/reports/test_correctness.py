"""The reported numbers of whole-trace scores, against the plain metrics of the same traces."""

from typing import Any

import numpy as np
import pytest

from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.reports.correctness import (
    calibrate,
    part_of,
    report_positions,
    report_quality,
    report_reliability,
)
from reasoning_irl.eval.reports.first_error import LabelledError, Source, SteppedTrace, report_localisation
from reasoning_irl.eval.reports.reranking import Labelled, labelled, report_reranking
from reasoning_irl.eval.traces.trace_file import TEST, Trace
from reasoning_irl.metrics import traces as metrics
from reasoning_irl.metrics.calibration import bin_of, brier, ece, reliability
from reasoning_irl.metrics.summary import Summary
from reasoning_irl.metrics.traces import Floats

RNG = np.random.default_rng(0)


def trace(problem: str, correct: bool, n_tokens: int, answer: int) -> Trace:
    row: dict[str, Any] = {"completion": f"<think>\n1\n</think>\n<answer>\n{answer}\n</answer>", "question": "?"}
    if answer == 3:
        row["completion"] = "no form"
    ids = tuple(range(n_tokens))
    return Trace(row, problem, TEST, correct, TokenSequence((1,), ids), [""] * n_tokens, [1] * n_tokens, 1)


@pytest.fixture(scope="module")
def data() -> Labelled:
    """Eight problems of four samples; a right one answers 0."""
    answers = RNG.integers(0, 4, 32)
    traces = [
        trace(f"p{i // 4}", answer == 0, int(RNG.integers(3, 30)), int(answer)) for i, answer in enumerate(answers)
    ]
    return labelled(traces, TEST)[0]


@pytest.fixture(scope="module")
def scores(data: Labelled) -> Floats:
    return np.round(RNG.normal(size=32) + data.correct, 1)


def test_every_metric_is_the_plain_one(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    probabilities = calibrate(summary, {"reward": scores}, {"reward": scores}, data)
    report_quality(summary, {"reward": scores}, probabilities, data)
    p = probabilities["reward"]
    assert p is not None
    right, problems = data.correct.astype(float), [t.problem for t in data.traces]
    formed = [float(t.row["completion"] != "no form") for t in data.traces]
    expected = {
        "auroc": metrics.auroc(scores, right),
        "auroc_within_prompt": metrics.auroc_within_prompt(scores, right, problems),
        "auprc": metrics.average_precision(scores, right),
        "ece": ece(p, right),
        "ece_equal_width": ece(p, right, "equal_width"),
        "brier": brier(p, right),
        "correlation": metrics.pearson(scores, right),
        "rank_correlation": metrics.spearman(scores, right),
        "partial_correlation": metrics.partial_correlation(scores, right, [data.lengths, formed]),
        "length_correlation": metrics.pearson(scores, data.lengths),
        "format_correlation": metrics.pearson(scores, formed),
    }
    for name, value in expected.items():
        assert value is not None
        assert summary.metrics[f"reward/{name}"] == pytest.approx(value, abs=1e-12)


def test_the_calibration_curve_comes_from_the_validation_split(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    found = calibrate(summary, {"a": scores, "b": None}, {"a": -scores, "b": None}, data)
    assert found["b"] is None
    assert found["a"] is not None
    # Where validation says that low is right, low it is, whatever the test labels say.
    assert np.all(np.diff(found["a"][np.argsort(scores)]) <= 0)


def test_a_split_of_one_kind_gives_no_calibration(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    all_right = Labelled(data.traces, np.ones(32, dtype=bool), data.lengths, data.members)
    probabilities = calibrate(summary, {"reward": scores}, {"reward": scores}, all_right)
    report_quality(summary, {"reward": scores}, probabilities, data)
    assert summary.metrics["reward/ece"] is None
    assert "validation" in summary.metrics["reward/ece/note"]
    assert summary.metrics["reward/auroc"] is not None


def test_the_reliability_diagram_and_positions_are_lists(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    p = calibrate(summary, {"reward": scores}, {"reward": scores}, data)["reward"]
    assert p is not None
    report_reliability(summary, "reward", p, data)
    lists = [summary.metrics[f"calibration/reward/bin_{name}"] for name in ("confidence", "accuracy", "count")]
    points = [point for point in zip(*lists, strict=True) if point[2]]
    assert points == [pytest.approx(point) for point in reliability(p, data.correct)]
    assert len(set(bin_of(p).tolist())) == len(points)

    values = [RNG.normal(size=len(t.sequence.completion_ids)).tolist() for t in data.traces]
    report_positions(summary, "reward", values, data)
    for kind, flag in (("right", True), ("wrong", False)):
        for part in range(10):
            means = []
            for of_tokens, right in zip(values, data.correct, strict=True):
                n = len(of_tokens)
                inside = [v for t, v in enumerate(of_tokens) if part / 10 <= (t + 0.5) / n < (part + 1) / 10]
                if right == flag and inside:
                    means.append(np.mean(inside))
            assert summary.metrics[f"position/reward/{kind}"][part] == pytest.approx(np.mean(means))
    assert part_of(10).tolist() == list(range(10))
    assert part_of(1).tolist() == [5]


def test_curves_of_choosing_stand_beside_each_other(data: Labelled, scores: Floats) -> None:
    summary = Summary(30, 0)
    right = data.correct.astype(float)
    report_reranking(
        summary, {"reward": scores, "random": 0 * scores, "oracle": right}, {"reward": np.ones(32)}, data, 0
    )
    found = summary.metrics
    assert found["curve/n"] == [1, 2, 3, 4]
    assert found["curve/random"] == pytest.approx([right.mean()] * 4)
    assert found["oracle@4"] == np.mean([right[group].any() for group in data.members])
    assert found["reward/weighted_majority@4"] == found["majority@4"]  # equal weights are the plain vote
    assert found["reward_minus_majority/weighted_majority@4/verdict"] == "cannot tell"
    assert found["reward_minus_frozen/rerank@1|4"] is None
    assert "no frozen" in found["reward_minus_frozen/rerank@1|4/note"]


def test_every_vote_is_on_the_same_subsets() -> None:
    """Trap: subsets drawn anew for each kind of vote, so that a difference between them is partly luck."""
    answers = np.random.default_rng(1).integers(0, 4, 12)
    one, _ = labelled([trace("p", answer == 0, 5, int(answer)) for answer in answers], TEST)
    summary = Summary(10, 0)
    report_reranking(summary, {}, {"reward": np.full(12, 0.3)}, one, 0)  # C(12, 6) = 924: too many to try all
    assert summary.metrics["curve/reward/weighted_majority"] == summary.metrics["curve/majority"]


def localised(validation_sound: bool) -> dict[str, Any]:
    """Two steps of two tokens; the second is wrong in each error."""

    def sequence(split: str, problem: int, step: int | None) -> Any:
        shared = (f"p{problem}", split, TokenSequence((1,), (1, 2, 3, 4)), [1, 1, 2, 2], 2)
        return SteppedTrace(*shared) if step is None else LabelledError(*shared, step)

    errors = [sequence(split, i, 2) for split in ("validation", "test") for i in range(4)]
    sound = [sequence(split, i, None) for split in ("validation", "test")[not validation_sound :] for i in range(4)]
    good = [[1.0, 1.0, -1.0, -1.0]] * 8, [[1.0, 1.0, 1.0, 1.0]] * len(sound)
    flat = [[0.0] * 4] * 8, [[0.0] * 4] * len(sound)
    summary = Summary(30, 0)
    report_localisation(
        summary, "natural", Source(errors, sound), {"reward": good, "logprob": flat, "frozen": None}, ""
    )
    return summary.metrics


def test_locating_errors_beside_chance() -> None:
    found = localised(validation_sound=True)
    for metric in ("hit@1", "hit@3", "map", "token_auroc", "accuracy"):
        assert found[f"reward/first_error_{metric}/natural"] == 1.0
    assert found["reward/processbench_f1/natural"] == found["reward/sound_accuracy/natural"] == 1.0
    # All steps alike: no better than chance, and never both kinds right.
    for metric in ("hit@1", "map", "token_auroc"):
        assert found[f"logprob/first_error_{metric}/natural"] == found[f"chance/first_error_{metric}/natural"]
    assert found["logprob/processbench_f1/natural"] == 0.0
    assert found["chance/processbench_f1/natural"] == pytest.approx(1 / 3)
    assert found["last_step/first_error_hit@1/natural"] == 1.0
    assert found["frozen/first_error_map/natural"] is None
    assert found["reward/first_error_hit@1/natural/late"] == 1.0
    assert found["reward/first_error_hit@1/natural/early"] is None
    assert "kind or position" in found["reward/first_error_hit@1/natural/early/note"]


def test_without_sound_traces_for_validation_there_is_no_threshold() -> None:
    found = localised(validation_sound=False)
    assert found["reward/processbench_f1/natural"] is None
    assert "validation split lacks" in found["reward/processbench_f1/natural/note"]
    assert found["reward/first_error_hit@1/natural"] == 1.0
