"""How well the score of a whole trace chooses among the samples of a problem."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.eval.scoring.methods import BASELINES, BY_NAME, CHOOSING, OTHER, REWARD, difference
from reasoning_irl.eval.traces.labelled import Labelled
from reasoning_irl.eval.traces.trace_file import Trace
from reasoning_irl.metrics.calibration import fit_platt
from reasoning_irl.metrics.reading import PRODUCT, Reading, step_means
from reasoning_irl.metrics.summary import Summary, mean_of
from reasoning_irl.metrics.traces import Floats, TokenValues, auroc, best_of_n, majority_curve
from reasoning_irl.rewards.checking import vote
from reasoning_irl.text.trace import extract_answer

AGGREGATION_CHOICES = ("mean", "min", "step_min", "last", PRODUCT)
NO_WEIGHTS = "undefined: no calibrated score to weight votes by"
NO_ANSWERS = "undefined: no completion has an answer to vote for"
ALL_NS = 16  # best of n for every n up to this one, then for powers of two


def choose_reading(token_values: TokenValues, data: Labelled, default: str = AGGREGATION_CHOICES[0]) -> Reading:
    """The reading with the best pooled AUROC on `data`, the validation split; `default` if AUROC is undefined.

    The AUROC within problems has far fewer pairs and, on a few hundred problems, chooses by noise. For the product,
    the mean of each step is calibrated to whether its whole trace is right.
    """
    step_ids = [trace.step_ids for trace in data.traces]
    means = [step_means(values, steps) for values, steps in zip(token_values, step_ids, strict=True)]
    of_trace = [np.full(steps.size, right) for steps, right in zip(means, data.correct, strict=True)]
    of_step = fit_platt(np.concatenate(means), np.concatenate(of_trace)) if means else None
    areas = {}
    for how in AGGREGATION_CHOICES:
        if how != PRODUCT or of_step is not None:
            reading = Reading(how, "auroc on validation", of_step)
            areas[reading] = auroc(reading.scores(token_values, step_ids), data.correct)
    known = {reading: area for reading, area in areas.items() if area is not None}
    if not known:
        return Reading(default, "default: no validation traces of both kinds")
    return max(known, key=lambda reading: known[reading])


def report_reranking(
    summary: Summary,
    scores: Mapping[str, Floats | None],
    weights: Mapping[str, Floats | None],
    data: Labelled,
    seed: int,
) -> None:
    """Reports best of n by each score, the plain vote and votes weighted by each score, differences, curves over n.

    `scores` (N,) by method. `weights` (N,) are the calibrated scores of the methods that weight votes.
    """
    n = data.n_samples
    if n == 0:
        return summary.missing("reward/rerank@1", "undefined: no test trace is labelled")
    ns = sorted({k for k in range(1, n + 1) if k <= ALL_NS or k & (k - 1) == 0 or k == n})
    rows: dict[str, Floats] = {}  # (P, len(ns)) by the name of the metric
    for method, values in scores.items():
        name = f"oracle@{n}" if method == "oracle" else f"{method}/rerank@1|{n}"
        if values is None:
            summary.missing(name, BY_NAME[method].not_scored)
        else:
            rows[name] = _rows(data, _best_of(values, data, ns))
            summary.metrics[f"curve/{method}"] = rows[name].mean(axis=0).tolist()
    keys = [_vote(trace) for trace in data.traces]
    votes: dict[str, Floats | None] = {f"majority@{n}": np.ones(len(keys))}
    votes |= {f"{method}/weighted_majority@{n}": of_method for method, of_method in weights.items()}
    for name, of_votes in votes.items():
        if of_votes is None or not any(key is not None for key in keys):
            summary.missing(name, NO_ANSWERS if of_votes is not None else NO_WEIGHTS)
            continue
        # The same seed for each, so that all vote on the same subsets.
        rows[name] = _rows(data, _vote_of(keys, of_votes, data, ns, np.random.default_rng(seed)))
        curve = "majority" if name == f"majority@{n}" else name.split("@")[0]
        summary.metrics[f"curve/{curve}"] = rows[name].mean(axis=0).tolist()
    for name, values in rows.items():
        summary.mean(name, values[:, -1])
    summary.metrics["curve/n"] = ns

    for metric in ("rerank@1|", "weighted_majority@"):
        for other in (name for name in BASELINES if name in CHOOSING):
            of_other = f"majority@{n}" if other == "majority" else f"{other}/{metric}{n}"
            if metric == "weighted_majority@" and other == "random":
                continue  # random weights are the plain vote
            if other == OTHER and OTHER not in scores:
                continue
            name = difference(other, f"{metric}{n}")
            mine = rows.get(f"{REWARD}/{metric}{n}")
            if mine is None or of_other not in rows:
                summary.missing(name, f"undefined: there is no {other if mine is not None else REWARD} to compare")
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
    """What a trace votes for: the answer in its text or, without one, the file's `answer`."""
    answer = extract_answer(trace.row["completion"]) or trace.row.get("answer")
    kind = AnswerKind(trace.row.get("answer_kind", AnswerKind.text))
    prompt = trace.row.get("prompt")
    question = prompt[-1]["content"] if isinstance(prompt, list) else str(trace.row.get("question") or prompt)
    return vote(None if answer is None else str(answer), kind, question)
