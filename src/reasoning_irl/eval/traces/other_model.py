"""Reads another reward model's token rewards for the same traces from the output of an earlier evaluation.

The other model may have another tokenizer: its rewards are carried to our tokens by character offsets (see
data/alignment.py), and the reward of its end token to our end token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reasoning_irl.data.alignment import carry
from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.eval.traces.trace_file import Skipped, Trace, check_row, problem_of
from reasoning_irl.metrics.summary import Metrics, read_metrics
from reasoning_irl.metrics.traces import Values
from reasoning_irl.text.token_spans import spans_of
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import METRICS_FILE, TRACES_FILE

Rewards = list[NDArray[np.float32]]


def scored_traces(against: str) -> Path:
    """The traces file of `eval.against`, which is the file or its folder. Raises UserError if it does not exist."""
    path = Path(against)
    path = path / TRACES_FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"eval.against={against} has no {TRACES_FILE}: set it to the output_dir of another evaluate_irl.py run"
        )
    return path


def about(path: Path) -> Metrics:
    """Metrics that describe the other reward model: its traces file, and the supervision it was trained with."""
    supervision = read_metrics(path.parent / METRICS_FILE).get("supervision", "not declared")
    return {"other/file": str(path), "other/supervision": supervision}


def other_rewards(path: Path, traces: Sequence[Trace], skipped: Skipped) -> tuple[list[Trace], Rewards]:
    """The traces that are also in `path` (matched by problem and completion), and its rewards (T,) for their tokens.

    Traces missing from `path` are added to `skipped`, which may raise DataError; the message says how many there are.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, trace in enumerate(traces):
        places.setdefault((trace.problem, trace.row["completion"]), []).append(place)
    found: dict[int, NDArray[np.float32]] = {}
    for line, row in read_jsonl(path):
        # Identical completions of a problem have identical rewards, so the first row is used for all of them.
        try:
            check_row(row)
        except DataError as error:
            raise DataError(f"{path}:{line}: {error}") from None
        for place in places.pop((problem_of(row), row["completion"]), ()):
            try:
                tokens, rewards = _checked(row)
            except DataError as error:
                raise DataError(f"{path}:{line}: {error}") from None
            found[place] = np.array(_at(traces[place].pieces, tokens, rewards), dtype=np.float32)
    missing = [trace for place, trace in enumerate(traces) if place not in found]
    if missing:
        reason = f"{len(missing)} of {len(traces)} traces have no counterpart (problem and completion) in {path}"
        for trace in missing:
            skipped.add(trace.line, f"{reason}: score both reward models on the same traces file")
    if not found:
        raise DataError(f"no trace of {skipped.path} is in {path}: score both reward models on the same traces file")
    return [traces[place] for place in sorted(found)], [found[place] for place in sorted(found)]


def _checked(row: dict[str, Any]) -> tuple[list[str], list[float]]:
    tokens, rewards = row.get("tokens"), row.get("token_rewards")
    if not tokens or not rewards:
        raise DataError("the trace lacks 'tokens' or 'token_rewards': use a file written by evaluate_irl.py")
    for values, of in ((tokens, str), (rewards, int | float)):
        if not isinstance(values, list) or not all(isinstance(value, of) for value in values):
            raise DataError("'tokens' must be a list of texts, and 'token_rewards' of numbers: score the traces again")
    if len(tokens) != len(rewards) or "".join(tokens) != row["completion"]:
        raise DataError("'tokens' and 'token_rewards' do not match 'completion': score the traces again")
    return tokens, rewards


def _at(pieces: Sequence[str], theirs: Sequence[str], rewards: Values) -> Values:
    """Carries the rewards of the tokens `theirs` (U,) to the tokens `pieces` (T,) of the same text."""
    if list(pieces) == list(theirs):
        return rewards
    source, target = spans_of(theirs), spans_of(pieces)
    length = target[-1][1]
    if pieces[-1] or theirs[-1]:  # a truncated trace has no end token
        return carry(rewards, source, target, length)
    return [*carry(rewards[:-1], source[:-1], target[:-1], length), rewards[-1]]
