"""Closed forms against their slow definitions, on small cases with many ties."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from reasoning_irl.metrics.traces import (
    AGGREGATIONS,
    auroc,
    auroc_within_prompt,
    average_precision,
    best_of_n,
    majority_at,
    majority_curve,
    oracle_at_n,
    partial_correlation,
    pass_at_k,
    pearson,
    spearman,
    step_scores,
)

CASES = range(1000)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def small_case(seed):
    """Up to 7 samples with scores from {0, 1, 2}, so that most cases have ties."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 8))
    return rng.integers(0, 3, size).astype(float), rng.random(size) < 0.5, int(rng.integers(1, size + 1))


def test_best_of_n_and_pass_at_k_match_enumeration():
    for seed in CASES:
        scores, correct, n = small_case(seed)
        best, any_right = [], []
        for subset in map(list, combinations(range(scores.size), n)):
            top = scores[subset] == scores[subset].max()
            best.append(correct[subset][top].mean())
            any_right.append(correct[subset].any())
        assert best_of_n(scores, correct, n) == pytest.approx(np.mean(best), abs=1e-12)
        assert oracle_at_n(correct, n) == pytest.approx(np.mean(any_right), abs=1e-12)
        assert pass_at_k(int(correct.sum()), correct.size, n) == oracle_at_n(correct, n)


def test_best_of_n_does_not_depend_on_the_order_of_samples(rng):
    scores, correct = np.array([1.0, 1.0, 0.0, 1.0]), np.array([True, False, False, False])
    assert best_of_n(scores, correct, 4) == pytest.approx(1 / 3)
    for _ in range(20):
        order = rng.permutation(4)
        assert best_of_n(scores[order], correct[order], 2) == best_of_n(scores, correct, 2)


def test_best_of_n_is_the_oracle_for_a_perfect_score_and_random_for_a_constant():
    correct = np.array([True, False, False, True, False])
    assert best_of_n(correct, correct, 3) == pytest.approx(oracle_at_n(correct, 3))
    assert best_of_n(np.zeros(5), correct, 3) == pytest.approx(correct.mean())
    assert best_of_n([0.3, -np.inf, 0.1, 0.2, 0.0], correct, 1) == pytest.approx(correct.mean())


def test_large_samples_do_not_overflow():
    correct = np.arange(2000) < 3
    assert best_of_n(np.arange(2000.0), correct, 1000) == pytest.approx(0.0, abs=1e-300)
    assert pass_at_k(3, 2000, 1000) == pytest.approx(0.875, abs=1e-3)


@pytest.mark.parametrize("n", [0, 3])
def test_subset_size_out_of_range_is_an_error(n):
    for call in (lambda: best_of_n([0.0, 1.0], [True, False], n), lambda: pass_at_k(1, 2, n)):
        with pytest.raises(ValueError, match="of 2 samples"):
            call()


def test_nan_scores_are_an_error():
    bad = [0.0, float("nan")]
    for call in (
        lambda: best_of_n(bad, [True, False], 1),
        lambda: auroc(bad, [True, False]),
        lambda: AGGREGATIONS["mean"](bad),
    ):
        with pytest.raises(ValueError, match="NaN at index 1"):
            call()


def test_unknown_correctness_is_an_error():
    with pytest.raises(ValueError, match="true or false"):
        best_of_n([0.0, 1.0], [True, None], 1)


@pytest.mark.parametrize(
    ("keys", "correct", "expected"),
    [
        ("aab", [1, 1, 0], 1.0),
        ("abb", [1, 0, 0], 0.0),
        ("aabbc", [1, 1, 0, 0, 0], 0.5),
        ([None, None, None, "a"], [0, 0, 0, 1], 1.0),  # missing answers never outvote an answer
        ([None, None], [0, 0], 0.0),
        ("abc", [1, 0, 0], 1 / 3),
    ],
)
def test_majority_of_all_samples(keys, correct, expected):
    assert majority_at(list(keys), correct) == pytest.approx(expected)


def test_majority_curve_is_exact_for_few_subsets(rng):
    for seed in range(60):
        scores, _, n = small_case(seed)
        keys = [None if score == 2 else score for score in scores]
        correct = scores == 0
        exact = np.mean(
            [majority_at([keys[i] for i in s], correct[list(s)]) for s in combinations(range(len(keys)), n)]
        )
        assert majority_curve(keys, correct, [n], rng)[0] == pytest.approx(exact)


def test_sampled_majority_curve_is_close_and_reproducible():
    keys = list("aaabbcd" * 2)
    correct = np.array([key == "a" for key in keys])
    exact = np.mean([majority_at([keys[i] for i in s], correct[list(s)]) for s in combinations(range(14), 5)])
    curve = majority_curve(keys, correct, [1, 5, 14], np.random.default_rng(1), draws=1500)
    assert curve[0] == pytest.approx(6 / 14)
    assert curve[1] == pytest.approx(exact, abs=4 * 0.5 / np.sqrt(1500))
    assert curve[2] == 1.0
    assert curve == majority_curve(keys, correct, [1, 5, 14], np.random.default_rng(1), draws=1500)


def pairs_won(scores, labels, groups):
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, right, g in zip(scores, labels, groups, strict=True)
        for b, also_right, h in zip(scores, labels, groups, strict=True)
        if right and not also_right and g == h
    ]
    return np.mean(wins) if wins else None


def test_auroc_matches_the_double_loop():
    for seed in CASES:
        scores, labels, n = small_case(seed)
        groups = np.random.default_rng(seed + 1000).integers(0, n, scores.size).tolist()
        assert auroc(scores, labels) == pytest.approx(pairs_won(scores, labels, [0] * scores.size))
        assert auroc_within_prompt(scores, labels, groups) == pytest.approx(pairs_won(scores, labels, groups))


def test_auroc_within_prompt_ignores_differences_between_problems():
    scores, labels = [10.0, 9.0, 1.0, 0.0], [False, True, False, True]
    assert auroc_within_prompt(scores, labels, ["easy", "easy", "hard", "hard"]) == 0.0
    assert auroc(scores, labels) == 0.25
    assert auroc([1.0, 2.0], [True, True]) is None
    assert auroc_within_prompt([1.0, 2.0], [True, False], ["a", "b"]) is None


def test_pearson(rng):
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, 3 - 2 * x) == pytest.approx(-1.0)
    assert pearson(x * 1e-200, y * 1e200) == pytest.approx(pearson(x, y))
    assert pearson(x, np.full(50, 0.1)) is None
    assert pearson([1.0], [1.0]) is None


# Six tokens: one before the steps, two steps of two tokens, one token after them.
REWARDS, STEPS = [9.0, 1.0, 3.0, -1.0, 0.0, 6.0], [0, 1, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [2.0, -0.5]),
        ("min", [1.0, -1.0]),
        ("drop", [2.0 - 3.0, -0.5 - 2.0]),  # the trace's mean is 18 / 6 = 3
    ],
)
def test_step_scores(how, expected):
    assert step_scores(REWARDS, STEPS, how) == pytest.approx(expected)


def test_steps_without_tokens_are_never_the_lowest():
    scores = step_scores([4.0, 2.0, 1.0], [1, 1, 3], "drop", n_steps=4)
    assert scores == pytest.approx([3 - 7 / 3, np.inf, 1 - 3, np.inf])
    assert step_scores([], [], n_steps=2).tolist() == [np.inf, np.inf]
    with pytest.raises(ValueError, match="step id 3 in a trace of 2"):
        step_scores([0.0], [3], n_steps=2)
    with pytest.raises(ValueError, match="unknown step score"):
        step_scores([0.0], [1], "median")


@pytest.mark.parametrize(
    ("name", "expected"), [("mean", 3.0), ("min", -1.0), ("last", 6.0), ("sum", 18.0), ("step_min", -0.5)]
)
def test_aggregations(name, expected):
    assert AGGREGATIONS[name](REWARDS, STEPS) == pytest.approx(expected)
    assert AGGREGATIONS[name](np.array(REWARDS), np.array(STEPS)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no tokens"):
        AGGREGATIONS[name]([], np.array([], dtype=int))


def test_only_step_min_needs_steps():
    assert AGGREGATIONS["mean"](REWARDS) == 3.0
    assert AGGREGATIONS["step_min"]([1.0, 2.0], [0, 0]) == 1.5
    with pytest.raises(ValueError, match="step of each token"):
        AGGREGATIONS["step_min"](REWARDS)


def weighted_vote(keys, correct, weights):
    """The definition of the vote, with exact fractions."""
    votes = {}
    for key, weight in zip(keys, weights, strict=True):
        if key is not None or set(keys) == {None}:
            votes[key] = votes.get(key, 0) + weight
    winners = [key for key in votes if votes[key] == max(votes.values())]
    shares = [np.mean([right for k, right in zip(keys, correct, strict=True) if k == winner]) for winner in winners]
    return np.mean(shares)


def test_weighted_votes_match_a_plain_count():
    for seed in CASES:
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 7))
        keys = [None if key == 3 else int(key) for key in rng.integers(0, 4, size)]
        correct = np.array([key == 0 for key in keys])
        weights = [Fraction(int(weight), 10) for weight in rng.integers(0, 4, size)]  # tenths: 0.1 + 0.2 ties with 0.3
        n = int(rng.integers(1, size + 1))
        expected = np.mean(
            [
                weighted_vote([keys[i] for i in s], correct[list(s)], [weights[i] for i in s])
                for s in combinations(range(size), n)
            ]
        )
        found = majority_curve(keys, correct, [n], rng, [float(weight) for weight in weights])[0]
        assert found == pytest.approx(expected, abs=1e-12)
        plain = majority_at(keys, correct)
        assert plain == pytest.approx(weighted_vote(keys, correct, [1] * size), abs=1e-12)


def test_average_precision_matches_a_loop_over_thresholds():
    for seed in CASES:
        scores, labels, _ = small_case(seed)
        area, recall = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            taken = scores >= threshold
            now = labels[taken].sum() / max(labels.sum(), 1)
            area += (now - recall) * labels[taken].mean()
            recall = now
        expected = area if 0 < labels.sum() < labels.size else None
        assert average_precision(scores, labels) == (expected and pytest.approx(expected, abs=1e-12))
    assert average_precision(np.zeros(10), np.arange(10) < 3) == pytest.approx(0.3)


def plain_ranks(values):
    return [
        np.mean([sum(other < v for other in values) + i for i in range(sum(o == v for o in values))]) for v in values
    ]


def test_rank_correlation_is_pearson_of_plain_ranks():
    for seed in CASES:
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 8))
        x, y = rng.integers(0, 4, size).astype(float), rng.integers(0, 4, size).astype(float)
        expected = pearson(plain_ranks(x), plain_ranks(y))
        assert spearman(x, y) == (expected if expected is None else pytest.approx(expected, abs=1e-9))


def test_partial_correlation_is_the_correlation_of_residuals():
    for seed in CASES:
        rng = np.random.default_rng(seed)
        size = int(rng.integers(6, 20))
        length, form = rng.integers(1, 50, size).astype(float), (rng.random(size) < 0.7).astype(float)
        x, y = rng.normal(size=size) + 0.1 * length, (rng.random(size) < 0.5).astype(float)
        design = np.stack([np.ones(size), length, form], axis=1)
        left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y)]
        expected = None if np.ptp(y) == 0 or np.std(left[1]) < 1e-6 else np.corrcoef(*left)[0, 1]
        found = partial_correlation(x, y, [length, form])
        assert found == (expected if expected is None else pytest.approx(expected, abs=1e-6))
    # Length is explained completely by itself; a constant control changes nothing.
    assert partial_correlation(length, y, [length]) is None
    assert partial_correlation(x, y, [np.ones(size)]) == pytest.approx(pearson(x, y))
    # Both depend on length and nothing else: correlated, but not given length.
    rng = np.random.default_rng(0)
    length = rng.normal(size=4000)
    a, b = length + rng.normal(size=4000), length + rng.normal(size=4000)
    assert pearson(a, b) == pytest.approx(0.5, abs=0.05)
    assert partial_correlation(a, b, [length]) == pytest.approx(0.0, abs=0.05)
