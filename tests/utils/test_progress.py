"""Progress without a terminal: few lines, on stderr, and every item."""

import math

import pytest

from reasoning_irl.utils.progress import elapsed_and_left, progress


def test_log_file_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(250), "scoring", min_seconds=0)) == list(range(250))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split()[:2] for line in printed.err.splitlines()] == [["scoring", f"{n}%"] for n in range(10, 101, 10)]


def test_short_loop_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("abc", "scoring", min_seconds=math.inf)) == ["a", "b", "c"]
    assert list(progress([], "scoring", min_seconds=0)) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "share", "shown"),
    [
        (30, 0.25, ("00:30", "01:30")),
        (7200, 0.5, ("2:00:00", "2:00:00")),
        (5, 0, ("00:05", "?")),
        (5, 1, ("00:05", "00:00")),
    ],
)
def test_time_left_is_at_the_same_rate(seconds: float, share: float, shown: tuple[str, str]) -> None:
    assert elapsed_and_left(seconds, share) == shown
