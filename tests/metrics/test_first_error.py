from itertools import permutations

import numpy as np
import pytest

from reasoning_irl.metrics.first_error import (
    average_precision_of_step,
    chance_average_precision,
    chance_hit,
    choose_threshold,
    first_error_hit,
    harmonic_mean,
    judgements,
    position_of,
    predicted_first_error,
    token_auroc,
)


def test_first_error_hit_matches_ranking_in_every_order_of_ties():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 6))
        scores, k = rng.integers(0, 3, size).astype(float), int(rng.integers(1, 4))
        labelled = int(rng.integers(1, size + 1))
        hits = []
        for order in permutations(range(size)):  # a stable sort breaks ties in this order
            lowest = sorted(order, key=lambda step: scores[step])[:k]
            hits.append(labelled - 1 in lowest)
        assert first_error_hit(scores, labelled, k) == pytest.approx(np.mean(hits))
        average = np.mean([first_error_hit(scores, step, k) for step in range(1, size + 1)])
        assert chance_hit(size, k) == pytest.approx(average)
    with pytest.raises(ValueError, match="step 3 of 2"):
        first_error_hit([0.0, 1.0], 3)
    with pytest.raises(ValueError, match="NaN at index 1"):
        first_error_hit([0.0, float("nan")], 1)


def test_average_precision_matches_ranking_in_every_order_of_ties():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 6))
        scores, step = rng.integers(0, 3, size).astype(float), int(rng.integers(1, size + 1))
        inverse = [
            1 / (sorted(order, key=lambda at: scores[at]).index(step - 1) + 1) for order in permutations(range(size))
        ]
        assert average_precision_of_step(scores, step) == pytest.approx(np.mean(inverse))
        each = [average_precision_of_step(scores, step) for step in range(1, size + 1)]
        assert chance_average_precision(size) == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="step 3 of 2"):
        average_precision_of_step([0.0, 1.0], 3)
    with pytest.raises(ValueError, match="NaN"):
        average_precision_of_step([0.0, float("nan")], 1)


def test_token_auroc_matches_the_double_loop():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 9))
        values, wrong = rng.integers(0, 3, size).astype(float), rng.random(size) < 0.4
        pairs = [(a < b) + 0.5 * (a == b) for a in values[wrong] for b in values[~wrong]]
        assert token_auroc(values, wrong) == (pytest.approx(np.mean(pairs)) if pairs else None)


def random_traces(rng, n):
    scores = [rng.integers(0, 5, int(rng.integers(1, 5))).astype(float) for _ in range(n)]
    for values in scores:
        if rng.random() < 0.2:
            values[0] = np.inf  # a step without tokens
    return scores


def test_judgements_and_threshold_match_a_search_over_thresholds():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        wrong, sound = random_traces(rng, int(rng.integers(1, 6))), random_traces(rng, int(rng.integers(1, 6)))
        labels = [int(rng.integers(1, values.size + 1)) for values in wrong]
        on_wrong, on_sound = judgements(wrong, labels), judgements(sound, [None] * len(sound))

        def f1(threshold, wrong=wrong, sound=sound, labels=labels):
            a = np.mean([predicted_first_error(v, threshold) == step for v, step in zip(wrong, labels, strict=True)])
            b = np.mean([predicted_first_error(v, threshold) is None for v in sound])
            return 2 * a * b / (a + b) if a + b else 0.0

        for threshold in np.arange(-0.5, 6, 0.5):
            for of_kind, scores, expected in ((on_wrong, wrong, labels), (on_sound, sound, [None] * len(sound))):
                right = [predicted_first_error(v, threshold) == step for v, step in zip(scores, expected, strict=True)]
                assert of_kind.right(threshold).tolist() == right
        chosen = choose_threshold(on_wrong, on_sound)
        assert f1(chosen) == pytest.approx(max(f1(threshold) for threshold in np.arange(-0.5, 6, 0.5)))
    assert choose_threshold(on_wrong, judgements([], [])) is None
    assert choose_threshold(judgements([], []), on_sound) is None


def test_step_at_the_threshold_is_not_below_it():
    assert predicted_first_error([1.0, 0.0, -1.0], 0.0) == 3
    assert predicted_first_error([1.0, 0.0], 0.0) is None
    assert judgements([[1.0, 0.0, -1.0]], [3]).right(0.0).tolist() == [1.0]
    # If an earlier step is lower than the labelled one, no threshold is right.
    assert judgements([[0.0, 1.0]], [2]).right(0.5).tolist() == [0.0]


def test_harmonic_mean_of_zero_and_nan():
    values = harmonic_mean(np.array([0.5, 0.0, 1.0, np.nan]), np.array([1.0, 0.0, 0.0, 1.0]))
    assert values[:3].tolist() == pytest.approx([2 / 3, 0.0, 0.0])
    assert np.isnan(values[3])


def test_position_is_a_third_of_the_trace():
    assert [position_of(step, 3) for step in (1, 2, 3)] == ["early", "middle", "late"]
    assert [position_of(step, 2) for step in (1, 2)] == ["early", "late"]
    assert [position_of(step, 4) for step in (1, 2, 3, 4)] == ["early", "middle", "middle", "late"]
    assert position_of(1, 1) == "middle"
    with pytest.raises(ValueError, match="step 2 of 1"):
        position_of(2, 1)
