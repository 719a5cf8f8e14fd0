import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from reasoning_irl.config.schema import DatasetConfig, IRLTrainConfig, PerturbationKind
from reasoning_irl.data.arithmetic import (
    OPERATIONS,
    Problem,
    expert_record,
    first_wrong_step,
    generate_problems,
    vocabulary,
    write_trace,
)
from reasoning_irl.data.loading import load_annotated, load_test, load_train
from reasoning_irl.data.perturbations import perturb
from reasoning_irl.data.records import Record
from reasoning_irl.text.trace import extract_answer, format_trace

EQUATION = re.compile(r"([0-9]+) ([-+*]) ([0-9]+) = ([0-9]+)")
EXPERT = format_trace("3 + 4 = 7\n7 - 2 = 5\n5 * 2 = 10", "10")


def problems(n: int, seed: int = 0, max_value: int = 40) -> list[Problem]:
    return list(islice(generate_problems(seed, max_value, 4, 0.3), n))


def holds(equation: tuple[str, ...]) -> bool:
    a, operator, b, c = equation
    return OPERATIONS[operator](int(a), int(b)) == int(c)


def test_streams_are_seeded() -> None:
    assert problems(100, seed=3) == problems(100, seed=3)
    assert problems(100, seed=3) != problems(100, seed=4)


def test_questions_do_not_repeat() -> None:
    assert len({problem.question for problem in problems(2000)}) == 2000


@pytest.mark.parametrize("max_value", [20, 40, 150])
def test_every_number_has_a_token(max_value: int) -> None:
    words = set(vocabulary(max_value))
    for problem in problems(300, max_value=max_value):
        trace = write_trace(problem.start, problem.steps)
        numbers = re.findall("[0-9]+", problem.question + trace)
        assert all(0 <= int(n) <= max_value and n in words for n in numbers)
        assert set(re.findall(r"[^\s.,?]+|[.,?]", problem.question)) <= words


def test_experts_are_correct() -> None:
    for i, problem in enumerate(problems(300)):
        record = expert_record(problem, str(i), "")
        equations = EQUATION.findall(record.target)
        assert len(equations) == len(problem.steps)
        assert all(map(holds, equations))
        assert equations[0][0] == str(problem.start)
        assert all(a[3] == b[0] for a, b in pairwise(equations))
        assert record.answer == equations[-1][3] == extract_answer(record.target)
        for step in problem.steps:
            assert str(step.operand) in problem.question
        assert first_wrong_step(record.target, record.target) is None


@pytest.mark.parametrize(
    "trace",
    [
        format_trace("4 + 3 = 7\n7 - 2 = 5\n2 * 5 = 10", "10"),
        format_trace("3+4=7\n\n  7 -2 = 5\n5 * 2= 10", " 10 "),
    ],
    ids=["commuted", "spacing"],
)
def test_harmless_differences_are_not_errors(trace: str) -> None:
    assert first_wrong_step(trace, EXPERT) is None


@pytest.mark.parametrize(
    ("steps", "answer", "wrong"),
    [
        ("3 + 4 = 8\n8 - 2 = 6\n6 * 2 = 12", "12", 1),
        ("3 + 4 = 7\n2 - 7 = 5\n5 * 2 = 10", "10", 2),  # minus is not commutative
        ("3 + 4 = 7\n7 - 2 = 5\n5 * 2 = 10", "11", 4),  # the answer is the last step
        ("7 - 2 = 5\n5 * 2 = 10", "10", 1),
        ("3 + 4 = 7\n5 * 2 = 10", "10", 2),
        ("3 + 4 = 7\n7 - 2 = 5", "10", 3),
        ("3 + 4 = 7\n7 - 2 = 5\n5 * 2 = 10\n10 - 1 = 9", "9", 4),
        ("3 + 4 = 7\n3 + 4 = 7\n7 - 2 = 5\n5 * 2 = 10", "10", 2),
        ("", "10", 1),
    ],
)
def test_first_wrong_step_by_hand(steps: str, answer: str, wrong: int) -> None:
    assert first_wrong_step(format_trace(steps, answer), EXPERT) == wrong


def test_truncated_trace_is_wrong_where_it_ends() -> None:
    assert first_wrong_step(EXPERT[: EXPERT.index("</think>")], EXPERT) == 4
    assert first_wrong_step(EXPERT[: EXPERT.index("7 - 2")], EXPERT) == 2
    assert first_wrong_step("", EXPERT) == 1


@pytest.mark.parametrize(
    "kind", ["operator_flip", "nearby_answer", "answer_from_trace", "number_corruption", "wrong_quantity"]
)
def test_planted_error_is_found_in_its_step(kind: str) -> None:
    rng, found = random.Random(1), 0
    for i, problem in enumerate(problems(150)):
        record = expert_record(problem, str(i), "")
        planted = perturb(record.target, record.question, PerturbationKind(kind), rng, max_value=40)
        if planted is not None:
            found += 1
            assert first_wrong_step(planted.text, record.target) == planted.step
    assert found > 75


@pytest.fixture(scope="module")
def config(tiny_config: Callable[..., IRLTrainConfig]) -> IRLTrainConfig:
    return tiny_config(["dataset.n_train=500", "dataset.n_heldout=50"])


def with_experts(config: IRLTrainConfig, n_train: int) -> DatasetConfig:
    """The same problems, split at another number of experts."""
    return replace(config.dataset, n_train=n_train)


@pytest.fixture(scope="module")
def annotated(config: IRLTrainConfig) -> list[Record]:
    return load_annotated(config.dataset, 500)


def test_annotator_often_misreads_and_slips(config: IRLTrainConfig, annotated: list[Record]) -> None:
    """After a warm start on flawless traces, AIRL would have nothing to improve."""
    # With this many more experts, the annotator's problems are among the experts' problems.
    experts = {r.question: r.target for r in load_train(with_experts(config, 500 + 500)).train}
    wrong = [r for r in annotated if first_wrong_step(r.target, experts[r.question]) is not None]
    assert 0.3 < len(wrong) / len(annotated) < 0.6
    slipped = [r for r in wrong if not all(map(holds, EQUATION.findall(r.target)))]
    misread = [r for r in wrong if r not in slipped]
    assert len(slipped) > 20
    assert len(misread) > 100
    for record in annotated:
        assert all(int(n) <= config.dataset.max_value for n in re.findall("[0-9]+", record.target))
        equations = EQUATION.findall(record.target)
        assert all(a[3] == b[0] for a, b in pairwise(equations))  # errors carry through
        assert extract_answer(record.target) == equations[-1][3]


def test_splits_share_no_problem(config: IRLTrainConfig, annotated: list[Record]) -> None:
    """Trap: a test problem among the training problems."""
    data = load_train(config.dataset)
    validation, test = load_test(config.dataset, 200, 300)
    splits = [data.train, data.heldout, annotated, validation, test]
    assert [len(split) for split in splits] == [500, 50, 500, 200, 300]
    questions = [record.question for split in splits for record in split]
    assert len(set(questions)) == len(questions)
    assert len({record.id for split in splits for record in split}) == len(questions)


def test_test_problems_do_not_depend_on_the_training_set(config: IRLTrainConfig) -> None:
    assert load_test(config.dataset, 20, 30) == load_test(with_experts(config, 7), 20, 30)
