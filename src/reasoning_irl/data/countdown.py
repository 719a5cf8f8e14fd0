"""Countdown: reach a target from given numbers with + - * / and parentheses, using each number at most once.

Problems are built from a solution, so that each has one; the expert writes its steps as one equation per line.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.text.trace import format_trace
from reasoning_irl.utils.errors import DataError

# All values in a solution are in 1..RANGE * max_number.
RANGE = 10
MAX_REPEATS = 20_000  # known problems drawn in a row before giving up

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_NUMBER = 3  # binds tighter than any operator


@dataclass(frozen=True)
class Problem:
    """Numbers in the order shown and a target, with the solution as steps `a OP b = c` and as one expression."""

    numbers: tuple[int, ...]
    target: int
    steps: tuple[str, ...]
    expression: str

    @property
    def key(self) -> tuple[tuple[int, ...], int]:
        """Equal for problems that differ only in the order of their numbers."""
        return tuple(sorted(self.numbers)), self.target


@dataclass(frozen=True)
class _Part:
    value: int
    text: str
    precedence: int


def generate_problems(seed: int, n_numbers: int, max_number: int) -> Iterator[Problem]:
    """Yields distinct problems with n numbers in 1..max_number; equal seeds yield equal streams.

    Raises DataError when it finds no new problem.
    """
    rng, seen, repeats = random.Random(seed), set[tuple[tuple[int, ...], int]](), 0
    while repeats < MAX_REPEATS:
        problem = _sample(rng, n_numbers, max_number)
        if problem is None or problem.key in seen:
            repeats += 1
            continue
        repeats = 0
        seen.add(problem.key)
        yield problem
    raise DataError(
        f"there are only about {len(seen)} countdown problems with {n_numbers} numbers up to {max_number}, fewer than "
        "asked for: raise dataset.countdown.n_numbers or max_number, or lower dataset.n_train"
    )


def ask(problem: Problem) -> str:
    """The text of the question, in the format that rewards/expressions.py reads."""
    *numbers, last = problem.numbers
    return (
        f"Use the numbers {', '.join(map(str, numbers))} and {last}, each at most once, with + - * / and parentheses "
        f"to write an expression that equals {problem.target}."
    )


def expert_record(problem: Problem, record_id: str, system_prompt: str) -> Record:
    """The problem as a record; its reference answer is the expert's expression, one of many that are right."""
    return Record(
        id=record_id,
        prompt=make_prompt(ask(problem), system_prompt),
        target=format_trace("\n".join(problem.steps), problem.expression),
        answer=problem.expression,
        answer_kind=AnswerKind.expression,
    )


def _sample(rng: random.Random, n_numbers: int, max_number: int) -> Problem | None:
    """A random problem, or None if the drawn numbers lead to none."""
    numbers = [rng.randint(1, max_number) for _ in range(n_numbers)]
    parts, steps = [_Part(n, str(n), _NUMBER) for n in numbers], []
    while len(parts) > 1:
        left, right = rng.sample(parts, 2)
        results = _results(left.value, right.value, RANGE * max_number)
        if not results:
            return None
        operator = rng.choice(list(results))
        for part in (left, right):
            parts.remove(part)
        parts.append(_Part(results[operator], _write(left, operator, right), _PRECEDENCE[operator]))
        steps.append(f"{left.value} {operator} {right.value} = {results[operator]}")
    (whole,) = parts
    if whole.value in numbers:  # a single number would solve it
        return None
    return Problem(tuple(numbers), whole.value, tuple(steps), whole.text)


def _results(left: int, right: int, limit: int) -> dict[str, int]:
    """The result of each operation, without results that equal an operand or are not integers in 1..limit."""
    results = {"+": left + right, "-": left - right, "*": left * right}
    if left % right == 0:
        results["/"] = left // right
    return {operator: n for operator, n in results.items() if 0 < n <= limit and n not in (left, right)}


def _write(left: _Part, operator: str, right: _Part) -> str:
    """Writes the expression with only the parentheses that it needs."""
    own = _PRECEDENCE[operator]
    a = f"({left.text})" if left.precedence < own else left.text
    b = f"({right.text})" if right.precedence < own or (right.precedence == own and operator in "-/") else right.text
    return f"{a} {operator} {b}"
