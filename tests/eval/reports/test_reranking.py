"""Choosing among the samples of a problem: how token values become a score, and what is reported."""

from typing import Any

import numpy as np
import pytest

from reasoning_irl.eval.reports.reranking import (
    NO_ANSWERS,
    NO_WEIGHTS,
    choose_reading,
    report_reranking,
)
from reasoning_irl.eval.scoring.methods import BY_NAME
from reasoning_irl.eval.traces.labelled import Labelled, labelled
from reasoning_irl.eval.traces.trace_file import TEST, VALIDATION, Trace
from reasoning_irl.metrics import traces as metrics
from reasoning_irl.metrics.calibration import fit_platt
from reasoning_irl.metrics.reading import Reading
from reasoning_irl.metrics.summary import Summary
from reasoning_irl.metrics.traces import Floats
from tests.helpers.traces import answered_trace, made_trace


def reported(
    data: Labelled, scores: dict[str, Floats | None], weights: dict[str, Floats | None] | None = None
) -> dict[str, Any]:
    summary = Summary(30, 0)
    report_reranking(summary, scores, weights or {}, data, 0)
    return summary.metrics


def split_of(traces: list[Trace]) -> Labelled:
    return labelled(traces, TEST)[0]


# From token values to the score of a trace


def test_aggregation_is_chosen_by_auroc_on_validation() -> None:
    traces = [made_trace("a", VALIDATION, correct, [1, 1, 2]) for correct in (True, False)]
    data, _ = labelled(traces, VALIDATION)
    values = [[0.0, 0.0, 1.0], [9.0, 9.0, 0.0]]  # only the last token separates right from wrong
    reading = choose_reading(values, data)
    assert (reading.aggregation, reading.by) == ("last", "auroc on validation")
    assert reading.scores(values, [trace.step_ids for trace in data.traces]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("labels", [[True, True], []])
def test_aggregation_is_the_default_if_auroc_is_undefined(labels: list[bool]) -> None:
    data, _ = labelled([made_trace("a", VALIDATION, label, [1, 2]) for label in labels], VALIDATION)
    values = [[0.0, 1.0]] * len(labels)
    assert choose_reading(values, data).aggregation == "mean"
    reading = choose_reading(values, data, "last")
    assert (reading.aggregation, reading.by) == ("last", "default: no validation traces of both kinds")


def test_product_multiplies_calibrated_step_probabilities() -> None:
    labels = [(True, [1, 2]), (False, [1, 1]), (False, [0])]
    data, _ = labelled([made_trace("a", VALIDATION, right, steps) for right, steps in labels], VALIDATION)
    values = [[2.0, 3.0], [-1.0, -3.0], [-5.0]]  # step means: 2 and 3, -2, and -5 for a trace without steps
    platt = fit_platt([2.0, 3.0, -2.0, -5.0], [1, 1, 0, 0])
    assert platt is not None
    p = platt.probabilities([2.0, 3.0, -2.0, -5.0])
    scores = Reading("product", "", platt).scores(values, [trace.step_ids for trace in data.traces])
    assert np.exp(scores) == pytest.approx([p[0] * p[1], p[2], p[3]])


# Best of n and votes


def test_best_of_n_is_the_mean_of_the_plain_metric_over_problems(data: Labelled, scores: Floats) -> None:
    found = reported(data, {"reward": scores, "logprob": -scores})
    for method, sign in (("reward", 1), ("logprob", -1)):
        expected = [
            np.mean([metrics.best_of_n(sign * scores[group], data.correct[group], n) for group in data.members])
            for n in (1, 2, 3, 4)
        ]
        assert found[f"curve/{method}"] == pytest.approx(expected)
        assert found[f"{method}/rerank@1|4"] == pytest.approx(expected[-1])
    difference = found["reward/rerank@1|4"] - found["logprob/rerank@1|4"]
    assert found["reward_minus_logprob/rerank@1|4"] == pytest.approx(difference)


def test_baselines_of_reranking(data: Labelled, scores: Floats) -> None:
    right = data.correct.astype(float)
    found = reported(data, {"reward": scores, "random": 0 * scores, "oracle": right, "frozen": None})
    assert found["curve/n"] == [1, 2, 3, 4]
    assert found["curve/random"] == pytest.approx([right.mean()] * 4)
    assert found["oracle@4"] == np.mean([right[group].any() for group in data.members])
    assert found["frozen/rerank@1|4/note"] == BY_NAME["frozen"].not_scored
    assert found["reward_minus_frozen/rerank@1|4"] is None
    assert "no frozen" in found["reward_minus_frozen/rerank@1|4/note"]
    assert not any("_minus_other" in name or "_minus_oracle" in name for name in found)


def test_votes_are_those_of_the_plain_metric(data: Labelled, scores: Floats) -> None:
    weights = np.random.default_rng(3).random(32)
    found = reported(data, {"reward": scores}, {"reward": weights})
    # A sample without tags has no vote.
    keys = [None if trace.row["completion"] == "no format" else trace.row["completion"] for trace in data.traces]

    def accuracy(weights: Floats) -> float:
        votes = [
            metrics.majority_at([keys[i] for i in group], data.correct[group], weights[group]) for group in data.members
        ]
        return float(np.mean(votes))

    assert found["majority@4"] == pytest.approx(accuracy(np.ones(32)))
    assert found["reward/weighted_majority@4"] == pytest.approx(accuracy(weights))
    difference = accuracy(weights) - accuracy(np.ones(32))
    assert found["reward_minus_majority/weighted_majority@4"] == pytest.approx(difference)
    assert "reward_minus_random/weighted_majority@4" not in found


def test_equal_weights_give_the_plain_majority_on_the_same_subsets() -> None:
    """Trap: new random subsets for each kind of vote, so that their difference is partly noise."""
    answers = np.random.default_rng(1).integers(0, 4, 12).tolist()
    one = split_of([answered_trace("p", answer) for answer in answers])
    found = reported(one, {}, {"reward": np.full(12, 0.3)})  # C(12, 6) = 924 subsets: too many to enumerate
    assert found["curve/reward/weighted_majority"] == found["curve/majority"]
    assert found["reward_minus_majority/weighted_majority@12"] == 0.0


def test_answer_of_the_file_votes_if_the_text_has_none() -> None:
    named = [made_trace("p", TEST, True, [1], completion="no tags", question="?", answer="0") for _ in range(2)]
    assert reported(split_of([*named, answered_trace("p", 1)]), {})["majority@3"] == 1.0


def test_answers_that_are_equal_numbers_share_their_votes() -> None:
    texts = ["<answer>2</answer>", "<answer>2.0</answer>", "<answer>3</answer>"]
    traces = [made_trace("p", TEST, text != texts[2], [1], completion=text, question="?") for text in texts]
    assert reported(split_of(traces), {})["majority@3"] == 1.0


def test_votes_without_answers_or_without_weights_say_why(data: Labelled) -> None:
    silent = split_of([answered_trace("p", 3) for _ in range(4)])
    assert reported(silent, {})["majority@4/note"] == NO_ANSWERS
    assert reported(data, {}, {"reward": None})["reward/weighted_majority@4/note"] == NO_WEIGHTS


def test_curves_beyond_sixteen_samples_use_powers_of_two() -> None:
    one = split_of([answered_trace("p", number % 3) for number in range(40)])
    found = reported(one, {"random": np.zeros(40)})
    assert found["curve/n"] == [*range(1, 17), 32, 40]
    assert len(found["curve/random"]) == len(found["curve/majority"]) == 18


def test_fewest_samples_of_any_problem_limit_the_curves() -> None:
    data = split_of([answered_trace(problem, 0) for problem in "aaabbbbb"])
    assert reported(data, {})["curve/n"] == [1, 2, 3]


def test_without_labelled_traces_reranking_is_undefined() -> None:
    found = reported(split_of([]), {"reward": np.zeros(0)})
    assert found["reward/rerank@1"] is None
    assert found["reward/rerank@1/note"].startswith("undefined")
