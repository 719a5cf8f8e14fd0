"""What a score of a whole trace is worth for choosing among the samples of a problem."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.eval.traces.trace_file import Trace
from reasoning_irl.metrics.calibration import Platt, fit_platt
from reasoning_irl.metrics.summary import Summary, mean_of
from reasoning_irl.metrics.traces import (
    AGGREGATIONS,
    Floats,
    TokenValues,
    Values,
    auroc,
    best_of_n,
    majority_curve,
    step_scores,
)
from reasoning_irl.rewards.checking import vote
from reasoning_irl.text.trace import extract_answer

# "product" is of the steps' calibrated probabilities (Lightman et al. 2023); the others stand in metrics.
PRODUCT = "product"
AGGREGATION_CHOICES = ("mean", "min", "step_min", "last", PRODUCT)
NOT_SCORED = "not scored: this run has no such model"
NO_ANSWERS = "undefined: no completion has an answer to vote for"
OTHER = "other"  # the reward model of an earlier evaluation
# Each is set against the reward.
BASELINES = ("random", "majority", "length", "logprob", "entropy", "frozen", OTHER)
ALL_NS = 16  # best of n for every n up to this many, then for powers of two


@dataclass(frozen=True)
class Labelled:
    """The traces of one split whose correctness is known, by problem."""

    traces: list[Trace]
    correct: NDArray[np.bool_]  # (N,) over all traces
    lengths: Floats  # (N,) tokens
    members: list[list[int]]  # (P,) lists of indices into traces

    @property
    def n_samples(self) -> int:
        """The samples that every problem has at least."""
        return min(map(len, self.members), default=0)

    @property
    def problem_of(self) -> NDArray[np.int64]:
        """(N,) the problem, from 0, of each trace."""
        problems = np.empty(len(self.traces), dtype=np.int64)
        for problem, group in enumerate(self.members):
            problems[group] = problem
        return problems


def labelled(traces: Sequence[Trace], split: str) -> tuple[Labelled, list[int]]:
    """The labelled traces of a split, and their places among all `traces`."""
    places = [at for at, trace in enumerate(traces) if trace.split == split and trace.correct is not None]
    chosen = [traces[at] for at in places]
    members: dict[str, list[int]] = {}
    for at, trace in enumerate(chosen):
        members.setdefault(trace.problem, []).append(at)
    return Labelled(
        chosen,
        np.array([bool(trace.correct) for trace in chosen], dtype=np.bool_),
        np.array([len(trace.sequence.completion_ids) for trace in chosen], dtype=np.float64),
        list(members.values()),
    ), places


@dataclass(frozen=True)
class Reading:
    """How the values of a trace's tokens become its score; `of_step` is the calibration that the product needs."""

    aggregation: str
    by: str  # what it was chosen by
    of_step: Platt | None = None

    def scores(self, token_values: TokenValues, traces: Sequence[Trace]) -> Floats:
        """Scores (N,) of traces from their tokens' values (N lists of T)."""
        pairs = zip(token_values, traces, strict=True)
        if self.aggregation == PRODUCT:
            assert self.of_step is not None
            return np.array([self.of_step.log_probabilities(_means(v, t)).sum() for v, t in pairs], dtype=np.float64)
        aggregate = AGGREGATIONS[self.aggregation]
        return np.array([aggregate(v, t.step_ids) for v, t in pairs], dtype=np.float64)


def _means(token_values: Values, trace: Trace) -> Floats:
    """Mean value (S,) of each step with tokens; a trace without steps is one step."""
    means = step_scores(token_values, trace.step_ids)
    means = means[np.isfinite(means)]
    return means if means.size else np.array([np.mean(token_values, dtype=np.float64)])


def choose_reading(token_values: TokenValues, data: Labelled, default: str = AGGREGATION_CHOICES[0]) -> Reading:
    """The reading with the best AUROC over all traces of `data`, the validation split; `default` where there is none.

    AUROC within problems has far fewer pairs and, on a few hundred problems, picks by noise. For the product, the mean
    of each step is calibrated to whether its whole trace is right.
    """
    means = [_means(values, trace) for values, trace in zip(token_values, data.traces, strict=True)]
    of_trace = [np.full(steps.size, right) for steps, right in zip(means, data.correct, strict=True)]
    of_step = fit_platt(np.concatenate(means), np.concatenate(of_trace)) if means else None
    areas = {}
    for how in AGGREGATION_CHOICES:
        if how != PRODUCT or of_step is not None:
            reading = Reading(how, "auroc on validation", of_step)
            areas[reading] = auroc(reading.scores(token_values, data.traces), data.correct)
    known = {reading: area for reading, area in areas.items() if area is not None}
    if not known:
        return Reading(default, "default: no validation traces of both kinds")
    return max(known, key=lambda reading: known[reading])


def report_reranking(
    summary: Summary,
    scores: Mapping[str, Floats | None],
    probabilities: Mapping[str, Floats | None],
    data: Labelled,
    seed: int,
) -> None:
    """Best of n by each score and votes weighted by it, beside the plain vote; the differences; curves over n.

    `scores` (N,) by method, among them "random" (a constant: ties are settled by expectation) and "oracle" (whether the
    trace is right); `probabilities` (N,) are the calibrated scores of the methods that weigh votes.
    """
    n = data.n_samples
    if n == 0:
        return summary.missing("reward/rerank@1", "undefined: no test trace says whether it is correct")
    ns = sorted({k for k in range(1, n + 1) if k <= ALL_NS or k & (k - 1) == 0 or k == n})
    rows: dict[str, Floats] = {}  # (P, len(ns)) by the name of the metric
    for method, values in scores.items():
        name = f"oracle@{n}" if method == "oracle" else f"{method}/rerank@1|{n}"
        if values is None:
            summary.missing(name, NOT_SCORED)
        else:
            rows[name] = _rows(data, _best_of(values, data, ns))
            summary.metrics[f"curve/{method}"] = rows[name].mean(axis=0).tolist()
    keys = [_vote(trace) for trace in data.traces]
    votes: dict[str, Floats | None] = {f"majority@{n}": np.ones(len(keys))}
    votes |= {f"{method}/weighted_majority@{n}": weights for method, weights in probabilities.items()}
    for name, weights in votes.items():
        if weights is None or not any(key is not None for key in keys):
            summary.missing(name, NO_ANSWERS if weights is not None else "undefined: no calibrated score to weigh by")
            continue
        # The same generator for each, so that all vote on the same subsets.
        rows[name] = _rows(data, _vote_of(keys, weights, data, ns, np.random.default_rng(seed)))
        curve = "majority" if name == f"majority@{n}" else name.split("@")[0]
        summary.metrics[f"curve/{curve}"] = rows[name].mean(axis=0).tolist()
    for name, values in rows.items():
        summary.mean(name, values[:, -1])
    summary.metrics["curve/n"] = ns

    for metric in ("rerank@1|", "weighted_majority@"):
        for other in BASELINES:
            of_other = f"majority@{n}" if other == "majority" else f"{other}/{metric}{n}"
            if metric == "weighted_majority@" and other == "random":
                continue  # random weights are the plain vote
            if other == OTHER and OTHER not in scores:
                continue
            name = f"reward_minus_{other}/{metric}{n}"
            mine = rows.get(f"reward/{metric}{n}")
            if mine is None or of_other not in rows:
                summary.missing(
                    name, f"undefined: there is no {other if mine is not None else 'reward'} to set it against"
                )
            else:
                a, b = mean_of(mine[:, -1]), mean_of(rows[of_other][:, -1])
                summary.difference(name, a, b, len(data.members), "")


def _rows(data: Labelled, curve: Callable[[list[int]], list[float]]) -> Floats:
    return np.array([curve(group) for group in data.members], dtype=np.float64)


def _best_of(scores: Floats, data: Labelled, ns: Sequence[int]) -> Callable[[list[int]], list[float]]:
    return lambda group: [best_of_n(scores[group], data.correct[group], n) for n in ns]


def _vote_of(
    keys: Sequence[Hashable | None], weights: Floats, data: Labelled, ns: Sequence[int], rng: np.random.Generator
) -> Callable[[list[int]], list[float]]:
    return lambda group: majority_curve([keys[i] for i in group], data.correct[group], ns, rng, weights[group])


def _vote(trace: Trace) -> Hashable | None:
    """What a trace votes for; the answer in its text comes before one that a file names."""
    answer = extract_answer(trace.row["completion"]) or trace.row.get("answer")
    kind = AnswerKind(trace.row.get("answer_kind", AnswerKind.text))
    prompt = trace.row.get("prompt")
    question = prompt[-1]["content"] if isinstance(prompt, list) else str(trace.row.get("question") or prompt)
    return vote(None if answer is None else str(answer), kind, question)
