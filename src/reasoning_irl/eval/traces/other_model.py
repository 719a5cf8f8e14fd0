"""The token rewards that an earlier evaluation gave to the same traces, by another reward model.

The other model may have another tokenizer: its rewards are carried to our tokens by character offsets (see
data/alignment.py), that of the end token to the end token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.data.alignment import carry
from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.eval.traces.trace_file import Skipped, Trace, problem_of
from reasoning_irl.metrics.summary import Metrics, read_metrics
from reasoning_irl.metrics.traces import Values
from reasoning_irl.text.token_spans import spans_of
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import METRICS_FILE, TRACES_FILE

Rewards = list[NDArray[np.float32]]


def scored_traces(against: str) -> Path:
    """The traces file that `eval.against` names, itself or by its folder. Raises UserError where there is none."""
    path = Path(against)
    path = path / TRACES_FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"eval.against={against} holds no {TRACES_FILE}: give the output_dir of another evaluate_irl.py"
        )
    return path


def about(path: Path) -> Metrics:
    """What is said of the other reward model: its file, and how it was taught."""
    supervision = read_metrics(path.parent / METRICS_FILE).get("supervision", "not declared")
    return {"other/file": str(path), "other/supervision": supervision}


def other_rewards(path: Path, traces: Sequence[Trace], skipped: Skipped) -> tuple[list[Trace], Rewards]:
    """The traces that `path` has too, by problem and completion, and its reward (T,) of each of their tokens.

    Traces that it lacks go to `skipped`, or raise DataError, which says how many there are.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, trace in enumerate(traces):
        places.setdefault((trace.problem, trace.row["completion"]), []).append(place)
    found: dict[int, NDArray[np.float32]] = {}
    for line, row in read_jsonl(path):
        # Equal completions of a problem have equal rewards, so the first row serves them all.
        for place in places.pop((problem_of(row), str(row.get("completion"))), ()):
            try:
                tokens, rewards = _checked(row)
            except DataError as error:
                raise DataError(f"{path}:{line}: {error}") from None
            found[place] = np.array(_at(traces[place].pieces, tokens, rewards), dtype=np.float32)
    missing = [trace for place, trace in enumerate(traces) if place not in found]
    if missing:
        told = f"{len(missing)} of {len(traces)} traces have no counterpart (problem and completion) in {path}"
        for trace in missing:
            skipped.add(trace.line, f"{told}: score both reward models on the same traces file")
    if not found:
        raise DataError(f"none of the traces of {skipped.path} is in {path}: score both models on the same file")
    return [traces[place] for place in sorted(found)], [found[place] for place in sorted(found)]


def _checked(row: dict[str, Any]) -> tuple[list[str], list[float]]:
    tokens, rewards = row.get("tokens"), row.get("token_rewards")
    if not tokens or not rewards:
        raise DataError("the trace has no 'tokens' and 'token_rewards': give a file that evaluate_irl.py wrote")
    if len(tokens) != len(rewards) or "".join(tokens) != row["completion"]:
        raise DataError("'tokens' and 'token_rewards' are not those of 'completion': score the traces anew")
    return tokens, rewards


def _at(pieces: Sequence[str], theirs: Sequence[str], rewards: Values) -> Values:
    """The rewards of the tokens `theirs` (U,) at the tokens `pieces` (T,) of the same text."""
    if list(pieces) == list(theirs):
        return rewards
    source, target = spans_of(theirs), spans_of(pieces)
    length = target[-1][1]
    if pieces[-1] or theirs[-1]:  # a trace that was cut off has no end token
        return carry(rewards, source, target, length)
    return [*carry(rewards[:-1], source[:-1], target[:-1], length), rewards[-1]]
