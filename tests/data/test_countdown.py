import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest

from reasoning_irl.config.schema import AnswerKind, CountdownConfig, DatasetConfig, DatasetName, IRLTrainConfig
from reasoning_irl.data.countdown import ask, expert_record, generate_problems
from reasoning_irl.data.loading import load_test, load_train
from reasoning_irl.rewards.answers import find_equations
from reasoning_irl.rewards.checking import is_right
from reasoning_irl.rewards.expressions import parse_expression, read_question
from reasoning_irl.text.trace import extract_answer, reasoning_span
from reasoning_irl.utils.errors import DataError


@pytest.mark.parametrize(("n_numbers", "max_number"), [(2, 50), (3, 9), (4, 25), (6, 1000)])
def test_every_expert_solves_its_problem(n_numbers: int, max_number: int) -> None:
    for i, problem in enumerate(islice(generate_problems(1, n_numbers, max_number), 300)):
        record = expert_record(problem, str(i), "")
        assert len(problem.numbers) == n_numbers
        assert all(1 <= n <= max_number for n in problem.numbers)
        assert problem.target not in problem.numbers
        assert read_question(record.question) == (problem.numbers, problem.target)

        expression = parse_expression(record.answer)
        assert expression is not None
        assert sorted(expression.numbers) == sorted(problem.numbers)
        assert is_right(extract_answer(record.target), record.answer, AnswerKind.expression, record.question)

        start, end = reasoning_span(record.target)
        lines = record.target[start:end].strip().splitlines()
        equations = find_equations(record.target[start:end])
        assert len(lines) == len(equations) == n_numbers - 1
        assert all(e.holds and e.result > 0 for e in equations)
        assert all(e.result not in (e.left, e.right) for e in equations)  # no step without effect
        assert equations[-1].result == problem.target
        # Every step uses the numbers that are left and the results of earlier steps.
        available = list(map(int, problem.numbers))
        for equation in equations:
            for operand in (equation.left, equation.right):
                available.remove(int(operand))
            available.append(int(equation.result))
        assert available == [problem.target]


def test_parentheses_are_written_where_they_are_needed() -> None:
    """Trap: without them the expression has another value; with all of them it shows how it was generated."""
    texts = [problem.expression for problem in islice(generate_problems(0, 5, 30), 500)]
    assert any("(" in text for text in texts)
    assert any("(" not in text for text in texts)
    assert not any(re.search(r"^\(.*\)$|\(\(|\([0-9]+\)", text) for text in texts if text.count("(") == 1)


def test_streams_are_seeded_and_do_not_repeat() -> None:
    def first(seed: int) -> list[str]:
        return [ask(problem) for problem in islice(generate_problems(seed, 4, 25), 300)]

    assert first(3) == first(3) != first(4)
    keys = [problem.key for problem in islice(generate_problems(0, 3, 9), 300)]
    assert len(set(keys)) == 300  # the same numbers in another order are the same problem


def test_running_out_of_problems_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(DataError, match=r"only about \d+ countdown problems with 2 numbers up to 3.*n_numbers"):
        list(generate_problems(0, 2, 3))


@pytest.fixture(scope="module")
def dataset(tiny_config: Callable[..., IRLTrainConfig]) -> DatasetConfig:
    dataset = tiny_config(["dataset.n_train=300", "dataset.n_heldout=20"]).dataset
    return replace(dataset, name=DatasetName.countdown, countdown=CountdownConfig(4, 25))


def test_no_problem_is_shared_between_splits(dataset: DatasetConfig) -> None:
    """Trap: a test problem among the training problems, perhaps with its numbers in another order."""
    data = load_train(dataset)
    splits = [data.train, data.heldout, *load_test(dataset, 100, 200)]
    assert [len(split) for split in splits] == [300, 20, 100, 200]
    problems = [read_question(record.question) for split in splits for record in split]
    assert len({(tuple(sorted(p[0])), p[1]) for p in problems if p}) == 620
    assert len({record.id for split in splits for record in split}) == 620


def test_test_problems_do_not_depend_on_the_training_set(dataset: DatasetConfig) -> None:
    assert load_test(dataset, 20, 30) == load_test(replace(dataset, n_train=7), 20, 30)
    assert load_train(dataset) == load_train(dataset)
