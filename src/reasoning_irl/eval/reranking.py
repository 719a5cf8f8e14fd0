"""What a score of a whole trace is worth: telling right from wrong, and choosing among samples of a problem."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.data.records import extract_answer
from reasoning_irl.eval.metrics import (
    AGGREGATIONS,
    Floats,
    auroc,
    best_of_n,
    majority_curve,
    oracle_at_n,
    pearson,
)
from reasoning_irl.eval.summary import Summary
from reasoning_irl.eval.trace_file import Trace
from reasoning_irl.rewards.answers import majority_key

AGGREGATION_CHOICES = ("mean", "min", "step_min", "last")
ONE_CLASS = "undefined: the traces are all right or all wrong"
NOT_SCORED = "not scored: this run has no such model"


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


def trace_scores(token_values: Sequence[Sequence[float]], traces: Sequence[Trace], how: str) -> Floats:
    """Scores (N,) of traces from their tokens' values (N lists of T)."""
    aggregate = AGGREGATIONS[how]
    return np.array([aggregate(v, t.step_ids) for v, t in zip(token_values, traces, strict=True)], dtype=np.float64)


def choose_aggregation(token_values: Sequence[Sequence[float]], data: Labelled) -> tuple[str, str]:
    """(aggregation, what it was chosen by): the best AUROC over all traces.

    AUROC within problems has far fewer pairs and, on a few hundred problems, picks by noise.
    """
    areas = {how: auroc(trace_scores(token_values, data.traces, how), data.correct) for how in AGGREGATION_CHOICES}
    known = {how: area for how, area in areas.items() if area is not None}
    if not known:
        return AGGREGATION_CHOICES[0], "default: no validation traces of both kinds"
    return max(known, key=lambda how: known[how]), "auroc on validation"


def report_scores(summary: Summary, method: str, scores: Floats | None, data: Labelled) -> None:
    """AUROC, AUROC within problems, and the correlation with length (tokens), of scores (N,)."""
    if scores is None:
        for name in ("auroc", "auroc_within_prompt", "length_correlation"):
            summary.missing(f"{method}/{name}", NOT_SCORED)
        return
    members = [np.array(group) for group in data.members]

    def pooled(problems: NDArray[np.int64]) -> float | None:
        at = np.concatenate([members[p] for p in problems])
        return auroc(scores[at], data.correct[at])

    def correlation(problems: NDArray[np.int64]) -> float | None:
        at = np.concatenate([members[p] for p in problems])
        return pearson(scores[at], data.lengths[at])

    won, pairs = _pairs_won(scores, data)
    summary.statistic(f"{method}/auroc", pooled, len(members), ONE_CLASS)
    no_pairs = "undefined: no problem has both a right and a wrong trace"
    summary.ratio(f"{method}/auroc_within_prompt", won, pairs, no_pairs)
    if method != "length":
        constant = "undefined: the scores or the lengths are all equal"
        summary.statistic(f"{method}/length_correlation", correlation, len(members), constant)


def _pairs_won(scores: Floats, data: Labelled) -> tuple[list[float], list[float]]:
    """(right, wrong) pairs of each problem (P,) that the score puts in order, and how many there are."""
    won, pairs = [], []
    for group in data.members:
        n_right = int(data.correct[group].sum())
        count = n_right * (len(group) - n_right)
        won.append((auroc(scores[group], data.correct[group]) or 0.0) * count)
        pairs.append(float(count))
    return won, pairs


def report_reranking(summary: Summary, scores: Mapping[str, Floats | None], data: Labelled, seed: int) -> None:
    """Best of n by each score, beside chance, majority vote and oracle; the differences; and curves over n."""
    n = data.n_samples
    if n == 0:
        return summary.missing("reward/rerank@1", "undefined: no test trace says whether it is correct")
    ns = sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})
    by_method: dict[str, NDArray[np.float64]] = {}  # (P, len(ns))
    for method, values in scores.items():
        if values is None:
            summary.missing(f"{method}/rerank@1|{n}", NOT_SCORED)
            continue
        by_method[method] = _rows(data, _best_of(values, data, ns))
    by_method["random"] = _rows(data, lambda group: [data.correct[group].mean()] * len(ns))
    by_method["oracle"] = _rows(data, lambda group: [oracle_at_n(data.correct[group], k) for k in ns])
    keys = [_vote(trace) for trace in data.traces]
    if any(key is not None for key in keys):
        rng = np.random.default_rng(seed)
        by_method["majority"] = _rows(
            data, lambda group: majority_curve([keys[i] for i in group], data.correct[group], ns, rng)
        )
    else:
        summary.missing(f"majority@{n}", "undefined: no completion has an answer to vote for")
    for method, rows in by_method.items():
        name = f"{method}@{n}" if method in ("majority", "oracle") else f"{method}/rerank@1|{n}"
        summary.mean(name, rows[:, -1])
        summary.metrics[f"curve/{method}"] = rows.mean(axis=0).tolist()
    summary.metrics["curve/n"] = ns
    for other in ("random", "majority", "logprob", "frozen", "length"):
        name = f"reward_minus_{other}/rerank@1|{n}"
        if other in by_method:
            summary.difference(name, by_method["reward"][:, -1], by_method[other][:, -1])
        else:
            summary.missing(name, f"undefined: there is no {other}")


def _rows(data: Labelled, curve: Callable[[list[int]], list[float]]) -> NDArray[np.float64]:
    return np.array([curve(group) for group in data.members], dtype=np.float64)


def _best_of(scores: Floats, data: Labelled, ns: Sequence[int]) -> Callable[[list[int]], list[float]]:
    return lambda group: [best_of_n(scores[group], data.correct[group], n) for n in ns]


def _vote(trace: Trace) -> Hashable | None:
    """What a trace votes for; the answer in its text comes before one that a file names."""
    answer = extract_answer(trace.row["completion"]) or trace.row.get("answer")
    return majority_key(None if answer is None else str(answer))
