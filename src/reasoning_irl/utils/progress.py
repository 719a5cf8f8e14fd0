"""How far a long loop is: a bar on a terminal, and a few lines in a log file."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from reasoning_irl.utils.processes import is_main

MIN_SECONDS = 10.0  # between two lines

Item = TypeVar("Item")


def progress(items: Sequence[Item], what: str, min_seconds: float = MIN_SECONDS) -> Iterator[Item]:
    """Yields the items under a bar or, if stderr is no terminal, with a line there after each tenth of them.

    The lines are at least `min_seconds` apart, so a loop that is over sooner prints none. Of several processes, the
    main one shows its own progress.
    """
    if not is_main():
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit="batch")
        return
    start = last = time.perf_counter()
    shown, total = 0, len(items)
    for n, item in enumerate(items, 1):
        yield item
        now = time.perf_counter()
        if 10 * n // total > shown and now - last >= min_seconds:
            shown, last = 10 * n // total, now
            elapsed, left = elapsed_and_left(now - start, n / total)
            print(f"{what} {n / total:4.0%}  {elapsed} elapsed, {left} left", file=sys.stderr, flush=True)


def elapsed_and_left(seconds: float, share: float) -> tuple[str, str]:
    """The time since the start and, at the same rate, until the end, as [h:]mm:ss; `share` in [0, 1] is done."""
    left = tqdm.format_interval(seconds * (1 - share) / share) if share else "?"
    return tqdm.format_interval(seconds), left
