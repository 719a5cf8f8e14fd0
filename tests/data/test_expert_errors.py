import logging
import random

import pytest

from reasoning_irl.data.expert_errors import plant_errors
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.rewards.options import show_options
from reasoning_irl.text.trace import format_trace
from reasoning_irl.utils.errors import DataError


def solved(n: int) -> Record:
    return Record(str(n), make_prompt(f"{n} and 4?", ""), format_trace(f"{n} + 4 = {n + 4}", str(n + 4)), str(n + 4))


def unbreakable(n: int) -> Record:
    return Record(str(n), make_prompt("Which?", ""), format_trace("Think of it.", "yes"), "yes")


EXPERTS = [solved(n) for n in range(100)]


def changed(before: list[Record], after: list[Record]) -> set[int]:
    return {at for at, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}


@pytest.mark.parametrize(("rate", "n"), [(0.0, 0), (0.004, 0), (0.3, 30), (0.305, 30), (1.0, 100)])
def test_share_of_experts_with_errors_is_exact(rate: float, n: int) -> None:
    erring = plant_errors(EXPERTS, rate, seed=0)
    at = changed(EXPERTS, erring)
    assert len(at) == n
    for i in at:
        a, b = EXPERTS[i], erring[i]
        assert a.target != b.target
        assert (a.id, a.prompt, a.answer, a.answer_kind) == (b.id, b.prompt, b.answer, b.answer_kind)


def test_errors_are_seeded_and_a_higher_rate_only_adds_some() -> None:
    low, high = plant_errors(EXPERTS, 0.1, seed=1), plant_errors(EXPERTS, 0.4, seed=1)
    assert low == plant_errors(EXPERTS, 0.1, seed=1)
    assert changed(EXPERTS, low) < changed(EXPERTS, high)
    assert all(low[at] == high[at] for at in changed(EXPERTS, low))
    assert changed(EXPERTS, plant_errors(EXPERTS, 0.1, seed=2)) != changed(EXPERTS, low)


def test_expert_that_cannot_be_perturbed_is_replaced_by_another() -> None:
    mixed = [solved(n) if n % 2 else unbreakable(n) for n in range(100)]
    assert changed(mixed, plant_errors(mixed, 0.5, seed=0)) == set(range(1, 100, 2))


def test_too_few_perturbable_experts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    mixed = [solved(n) if n < 10 else unbreakable(n) for n in range(100)]
    with caplog.at_level(logging.WARNING, "reasoning_irl"):
        assert len(changed(mixed, plant_errors(mixed, 0.3, seed=0))) == 10
    (message,) = caplog.messages
    assert "asks for errors in 30 of 100 experts, but only 10 can be perturbed" in message
    with pytest.raises(DataError, match=r"expert_error_rate=0\.3: no expert"):
        plant_errors(mixed[10:], 0.3, seed=0)
    assert plant_errors(mixed[10:], 0.0, seed=0) == mixed[10:]


def test_multiple_choice_errors_choose_another_option() -> None:
    question = show_options("Which?", {"A": "Aspirin", "B": "Heparin", "C": "Warfarin"})
    records = [Record(str(n), make_prompt(question, ""), format_trace("A clot.", "B. Heparin"), "B") for n in range(40)]
    traces = {record.target for record in plant_errors(records, 1.0, seed=0)}
    assert traces == {format_trace("A clot.", answer) for answer in ("A. Aspirin", "C. Warfarin")}


def test_errors_use_no_number_outside_the_vocabulary() -> None:
    records = [solved(n) for n in random.Random(0).sample(range(12), 10)]
    for record in plant_errors(records, 1.0, seed=0, max_value=15):
        assert all(int(word) <= 15 for word in record.target.split() if word.isdigit())
