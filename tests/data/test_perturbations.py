import random
from collections.abc import Iterator
from fractions import Fraction

import pytest

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.perturbations import Perturbation, perturb, sample_perturbations
from reasoning_irl.rewards.answers import answers_match, find_equations, find_magnitudes, parse_number
from reasoning_irl.rewards.options import find_options, read_choice, show_options
from reasoning_irl.text.trace import extract_answer, format_trace, step_spans

ANSWER_KINDS = (PerturbationKind.nearby_answer, PerturbationKind.answer_from_trace)
EQUATION_KINDS = (PerturbationKind.operator_flip, PerturbationKind.number_corruption)
NUMBER_KINDS = (
    PerturbationKind.operator_flip,
    PerturbationKind.nearby_answer,
    PerturbationKind.answer_from_trace,
    PerturbationKind.number_corruption,
    PerturbationKind.wrong_quantity,
)
STYLES = ("{a} {o} {b} = {c}", "{a}{o}{b}={c}", "She has {a} {o} {b} = {c} pens.", "1. pay ${a} {o} ${b} = ${c}")
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def write(a: int, operator: str, b: int, style: str) -> str:
    return style.format(a=f"{a:,}", o=operator, b=f"{b:,}", c=f"{OPERATIONS[operator](a, b):,}")


def random_traces(n: int) -> Iterator[tuple[str, str]]:
    """Traces of equations that hold, many with small numbers, for which an edit may happen to be true again."""
    rng = random.Random(0)
    for _ in range(n):
        top, lines, numbers = rng.choice((3, 12, 2000)), [], []
        for _ in range(rng.randint(1, 4)):
            a, b, operator = rng.randint(0, top), rng.randint(0, top), rng.choice("+-*")
            a, b = (max(a, b), min(a, b)) if operator == "-" else (a, b)
            lines.append(write(a, operator, b, rng.choice(STYLES)))
            numbers += [a, b]
            answer = OPERATIONS[operator](a, b)
        question = f"With {', '.join(map(str, rng.sample(numbers, 2)))} and {rng.randint(0, top)}, how many?"
        form = rng.choice(("{}", "${:,}", "{} pens", "{}.0"))
        yield format_trace("\n".join(lines), form.format(answer)), question


def check_edit(trace: str, found: Perturbation) -> None:
    """The span is the changed region, and the step is the one that contains it."""
    start, end = found.span
    tail = len(found.text) - end
    assert found.text != trace
    assert found.text[:start] == trace[:start]
    assert found.text[end:] == trace[len(trace) - tail :]
    assert found.text[start:end] != trace[start : len(trace) - tail]
    first, last = step_spans(found.text)[found.step - 1]
    assert first <= start < end <= last


def check_meaning(trace: str, found: Perturbation) -> None:
    """The edit breaks what its kind should break, and nothing else."""
    start, end = found.span
    before, after = find_equations(trace), find_equations(found.text)
    reference = extract_answer(trace)
    assert reference is not None
    assert len(before) == len(after)
    touched = [e for e in after if e.span[0] <= start and end <= e.span[1]]
    assert all(e.holds for e in after if e not in touched)
    if found.kind in ANSWER_KINDS:
        assert touched == []
        assert found.step == len(step_spans(trace))
        assert not answers_match(extract_answer(found.text), reference)
        assert parse_number(extract_answer(found.text) or "") is not None
        return
    assert extract_answer(found.text) == reference
    (edited,) = touched
    assert edited.holds == (found.kind is PerturbationKind.wrong_quantity)
    if found.kind is PerturbationKind.wrong_quantity:
        old = before[after.index(edited)]
        assert edited.span == found.span
        assert edited.result != old.result
        assert edited.operator == old.operator
        assert (edited.left == old.left) != (edited.right == old.right)
        assert edited.result >= 0
        assert edited.result.denominator == 1


@pytest.mark.parametrize("kind", NUMBER_KINDS)
def test_every_perturbation_changes_the_meaning(kind: PerturbationKind) -> None:
    rng, made = random.Random(1), 0
    for trace, question in random_traces(300):
        for found in sample_perturbations(trace, question, [kind], 5, rng):
            assert found.kind is kind
            check_edit(trace, found)
            check_meaning(trace, found)
            made += 1
    assert made > 300


@pytest.mark.parametrize("kind", [*NUMBER_KINDS, PerturbationKind.other_option])
def test_perturbations_are_seeded_and_valid(kind: PerturbationKind) -> None:
    for seed, (trace, question) in enumerate(random_traces(100)):
        found = perturb(trace, question, kind, random.Random(seed))
        assert found == perturb(trace, question, kind, random.Random(seed))
        if found is not None:
            check_edit(trace, found)
            check_meaning(trace, found)


@pytest.mark.parametrize("kind", NUMBER_KINDS)
def test_perturbations_use_no_number_outside_the_vocabulary(kind: PerturbationKind) -> None:
    rng, top, made = random.Random(2), 12, 0
    for trace, question in random_traces(300):
        known = {value for _, value in find_magnitudes(trace)}
        for found in sample_perturbations(trace, question, [kind], 5, rng, max_value=top):
            check_meaning(trace, found)
            new = {value for _, value in find_magnitudes(found.text)} - known
            assert all(value.denominator == 1 and 0 <= value <= top for value in new)
            assert found.text.count("/") == trace.count("/")
            made += 1
    assert made > 100


def all_texts(trace: str, kind: PerturbationKind, question: str = "") -> list[str]:
    return [found.text for found in sample_perturbations(trace, question, [kind], 1000, random.Random(0))]


@pytest.mark.parametrize(
    ("equation", "flipped"),
    [
        ("2 + 2 = 4", {"2 - 2 = 4", "2 / 2 = 4"}),
        ("2 * 2 = 4", {"2 - 2 = 4", "2 / 2 = 4"}),
        ("5 - 0 = 5", {"5 * 0 = 5", "5 / 0 = 5"}),
        ("5 * 1 = 5", {"5 + 1 = 5", "5 - 1 = 5"}),
        ("2 × 3 = 6", {"2 + 3 = 6", "2 - 3 = 6", "2 / 3 = 6"}),
    ],
)
def test_operator_flips_never_still_hold(equation: str, flipped: set[str]) -> None:
    texts = all_texts(format_trace(equation, "4"), PerturbationKind.operator_flip)
    assert set(texts) == {format_trace(text, "4") for text in flipped}


def test_flipped_operators_use_the_symbols_of_the_trace() -> None:
    texts = all_texts(format_trace("2 × 3 = 6\n6 + 5 = 11", "11"), PerturbationKind.operator_flip)
    assert any("6 × 5 = 11" in text for text in texts)
    assert not any("*" in text for text in texts)


def test_number_corruptions_never_still_hold() -> None:
    texts = all_texts(format_trace("0 * 5 = 0", "0"), PerturbationKind.number_corruption)
    assert texts
    assert all("* 5" in text for text in texts)


def test_wrong_quantity_replaces_operand_and_result() -> None:
    trace = format_trace("Ann pays 4 * $1,000 = $4,000 now.\n4000 + 1 = 4001", "4001")
    texts = all_texts(trace, PerturbationKind.wrong_quantity, "Ann buys 4 for 1000, then 7 hats.")
    assert {text.splitlines()[1] for text in texts} == {
        "Ann pays 7 * $1,000 = $7,000 now.",
        "Ann pays 1000 * $1,000 = $1,000,000 now.",
        "Ann pays 4 * $4 = $16 now.",
        "Ann pays 4 * $7 = $28 now.",
    }
    assert all(text.splitlines()[2:] == trace.splitlines()[2:] for text in texts)


@pytest.mark.parametrize(
    ("equation", "question"),
    [
        ("3 + 4 = 7", "Only 3 is given."),  # no other quantity
        ("3 + 4 = 7", "Other numbers: 8 and 9."),  # no operand comes from the question
        ("0 * 4 = 0", "4 or 5"),  # 0 * 5 is 0 again
        ("6 - 4 = 2", "4 or 9"),  # 6 - 9 is negative
        ("6 - 4 = 2", "4 or 4.0"),  # the same quantity written twice
        ("6 / 4 = 1.5", "4 or 7"),  # 6 / 7 is not an integer
        ("6 / 4 = 1.5", "4 or 0"),  # division by zero
    ],
)
def test_wrong_quantity_needs_another_quantity_with_another_result(equation: str, question: str) -> None:
    assert all_texts(format_trace(equation, "7"), PerturbationKind.wrong_quantity, question) == []


def test_digits_outside_equations_are_never_changed() -> None:
    trace = format_trace("1. Step 2 of 9\n2. 3 + 4 = 7", "7")
    for kind in EQUATION_KINDS:
        for text in all_texts(trace, kind):
            assert text.splitlines()[1] == "1. Step 2 of 9"
            assert text.splitlines()[2].startswith("2. ")
    answers = {extract_answer(text) for text in all_texts(trace, PerturbationKind.answer_from_trace)}
    assert answers == {"2", "9", "3", "4"}  # 2 is inside a line; the list number 1 does not count


def test_wrong_equations_are_not_edited() -> None:
    trace = format_trace("3 + 4 = 8", "8")
    for kind in (*EQUATION_KINDS, PerturbationKind.wrong_quantity):
        assert all_texts(trace, kind, "3 and 4 and 5") == []


@pytest.mark.parametrize("kind", [*EQUATION_KINDS, PerturbationKind.wrong_quantity])
def test_trace_without_equations_cannot_be_perturbed(kind: PerturbationKind) -> None:
    trace = format_trace("Half of 48 is 24, and 48 more make 72.", "72")
    assert perturb(trace, "48 and 24", kind, random.Random(0)) is None


def test_trace_with_a_single_number_has_no_other_answer() -> None:
    trace = format_trace("It is 7, or 7.0 to be exact.", "7")
    assert perturb(trace, "", PerturbationKind.answer_from_trace, random.Random(0)) is None


@pytest.mark.parametrize("kind", PerturbationKind)
@pytest.mark.parametrize("trace", ["", "no tags", "<think>\nno numbers\n</think>\n<answer>\nyes\n</answer>"])
def test_text_without_numbers_cannot_be_perturbed(trace: str, kind: PerturbationKind) -> None:
    assert perturb(trace, "3 and 4", kind, random.Random(0)) is None


@pytest.mark.parametrize(
    ("answer", "nudged"),
    [
        ("0", {"1", "2", "3"}),
        ("$999", {"$989", "$996", "$997", "$998", "$1000", "$1001", "$1002", "$1009"}),
        ("1,800 pens", {f"1,{n} pens" for n in (790, 797, 798, 799, 801, 802, 803, 810)}),
        ("2.50", {"2.20", "2.30", "2.40", "2.60", "2.70", "2.80", "1.50", "3.50"}),
        ("1/2", {"0/2", "2/2", "3/2", "4/2"}),
        ("-3", {"-6", "-5", "-4", "-2", "-1", "0"}),
    ],
)
def test_nearby_answers_keep_their_format(answer: str, nudged: set[str]) -> None:
    texts = all_texts(format_trace("no equation", answer), PerturbationKind.nearby_answer)
    assert {extract_answer(text) for text in texts} == nudged


def test_answer_that_is_not_a_number_is_not_changed() -> None:
    for kind in ANSWER_KINDS:
        assert all_texts(format_trace("3 + 4 = 7", "vitamin B12"), kind) == []


def test_sampled_perturbations_are_distinct_and_alternate_kinds() -> None:
    trace = format_trace("3 + 4 = 7\n7 * 2 = 14", "14")
    found = sample_perturbations(trace, "3, 4 and 2", NUMBER_KINDS, 10, random.Random(3))
    assert len({item.text for item in found}) == 10
    assert all(len({item.kind for item in found[i : i + 5]}) == 5 for i in (0, 5))
    assert sample_perturbations(trace, "", NUMBER_KINDS, 0, random.Random(3)) == []
    assert sample_perturbations(trace, "", [], 3, random.Random(3)) == []


def test_edit_shared_by_two_kinds_is_sampled_once() -> None:
    trace = format_trace("3 + 4 = 7", "7")
    texts = [item.text for item in sample_perturbations(trace, "", ANSWER_KINDS, 1000, random.Random(0))]
    assert sorted(extract_answer(text) or "" for text in texts) == ["10", "3", "4", "5", "6", "8", "9"]


def test_every_step_is_perturbed_about_equally_often() -> None:
    trace = format_trace("3 + 4 = 7\n7 * 2 = 14\n14 - 5 = 9", "9")
    rng = random.Random(4)
    for kind in EQUATION_KINDS:
        found = [perturb(trace, "", kind, rng) for _ in range(60)]
        counts = [sum(item is not None and item.step == step for item in found) for step in (1, 2, 3)]
        assert min(counts) > 8


def test_spans_are_right_in_a_trace_without_tags() -> None:
    found = perturb("So 3 + 4 = 7", "", PerturbationKind.operator_flip, random.Random(0))
    assert found is not None
    assert (found.span, found.step) == ((5, 6), 1)
    assert Fraction(3) in {value for _, value in find_magnitudes(found.text)}


OPTIONS = {"A": "Aspirin", "B": "Aspirin and heparin", "C": "E. coli", "D": "aspirin."}  # A and D are the same answer


@pytest.mark.parametrize(
    ("answer", "others"),
    [
        ("A. Aspirin", {"B. Aspirin and heparin", "C. E. coli"}),
        ("D. aspirin.", {"B. Aspirin and heparin", "C. E. coli"}),
        ("B", {"A", "C", "D"}),
        ("(b).", {"(A).", "(C).", "(D)."}),
        ("E. coli", {"Aspirin", "Aspirin and heparin", "aspirin."}),
        ("The answer is C", {"A. Aspirin", "B. Aspirin and heparin", "D. aspirin."}),
    ],
)
def test_other_option_is_written_like_the_answer(answer: str, others: set[str]) -> None:
    trace, question = format_trace("1. A clot, so aspirin.", answer), show_options("Which drug?", OPTIONS)
    found = sample_perturbations(trace, question, [PerturbationKind.other_option], 100, random.Random(0))
    assert {extract_answer(item.text) for item in found} == others
    for item in found:
        check_edit(trace, item)
        assert (item.kind, item.step) == (PerturbationKind.other_option, 2)
        said = read_choice(extract_answer(item.text), find_options(question))
        assert said is not None
        assert said != read_choice(answer, OPTIONS)


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("B", "Which drug?"),  # no options are shown
        ("B", show_options("Which?", {"A": "Aspirin", "B": " aspirin. "})),  # all are the same answer
        ("both", show_options("Which?", OPTIONS)),
        ("", show_options("Which?", OPTIONS)),
    ],
)
def test_other_option_needs_another_option(answer: str, question: str) -> None:
    assert perturb(format_trace("So.", answer), question, PerturbationKind.other_option, random.Random(0)) is None
