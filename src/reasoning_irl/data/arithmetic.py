"""The embedded data set: seeded multi-step word problems, expert traces, an error-prone annotator, and a checker.

A problem tells how one quantity changes; its expert writes one equation per step. The *annotator* of the warm start
solves such problems with two kinds of error that a learner would copy: systematic misreadings (some wordings invite the
wrong operation, and an irrelevant number is mistaken for an operand) and slips in a result. Both carry through to the
following steps.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import add, mul, sub

from reasoning_irl.config.schema import AnnotatorConfig
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.text.trace import extract_answer, format_trace, step_spans

_WORD = re.compile(r"[0-9]+|[^\W\d]+|\S")

OPERATIONS = {"+": add, "-": sub, "*": mul}
NAMES = ("Tom", "Mia", "Sam", "Ada", "Leo", "Eva", "Max", "Zoe")
ITEMS = ("apples", "books", "coins", "cards", "shells", "pens")

# The wordings of a change, by the operation they mean.
WORDINGS: dict[str, tuple[str, ...]] = {
    "+": (
        "{name} finds {n} more .",
        "{friend} gives {name} {n} .",
        "Then {n} are added .",
        "{name} wins {n} from {friend} .",
    ),
    "-": (
        "{name} loses {n} .",
        "{name} gives {friend} {n} .",
        "Then {n} are sold .",
        "{friend} wins {n} from {name} .",
    ),
    "*": (
        "Then the number grows {n} times .",
        "Now {name} has {n} times as many .",
    ),
}
OPENINGS = ("{name} has {n} {item} .", "There are {n} {item} with {name} .")
DISTRACTORS = ("{friend} has {n} {other} .", "{friend} is {n} years old .")
QUESTIONS = ("How many {item} are there now ?", "How many {item} does {name} have ?")

# Wordings that the annotator misreads, with the operation it uses: who gives and who gets is easily swapped.
MISREADINGS = {
    "{friend} wins {n} from {name} .": "+",
    "{friend} gives {name} {n} .": "-",
    "{name} gives {friend} {n} .": "+",
    "Then the number grows {n} times .": "+",
}


@dataclass(frozen=True)
class Step:
    """One change of the quantity: `operation` applied to the running value and `operand`."""

    operation: str
    operand: int
    wording: str


@dataclass(frozen=True)
class Problem:
    """A word problem: its text, initial value and changes; `distractor` is an irrelevant number in the text."""

    question: str
    start: int
    steps: tuple[Step, ...]
    distractor: int | None


def value_after(value: int, step: Step) -> int:
    return OPERATIONS[step.operation](value, step.operand)


def sample_problem(rng: random.Random, max_value: int, max_steps: int, distractor_rate: float) -> Problem:
    """Samples a problem with all values in 0..max_value, so that a small vocabulary has one token per number."""
    n_steps = rng.randint(1, max_steps)
    start = value = rng.randint(2, max_value // 2)
    steps: list[Step] = []
    for _ in range(n_steps):
        candidates = [
            Step(operation, operand, "")
            for operation in OPERATIONS
            for operand in (range(2, 5) if operation == "*" else range(1, 10))
        ]
        valid = [step for step in candidates if 0 < value_after(value, step) <= max_value]
        # Choose the operation first, so that the many additions and subtractions do not crowd out products.
        operation = rng.choice(sorted({step.operation for step in valid}))
        step = rng.choice([step for step in valid if step.operation == operation])
        steps.append(replace(step, wording=rng.choice(WORDINGS[operation])))
        value = value_after(value, step)
    distractor = rng.randint(1, 9) if rng.random() < distractor_rate else None
    return Problem(_tell(rng, start, steps, distractor), start, tuple(steps), distractor)


def _tell(rng: random.Random, start: int, steps: list[Step], distractor: int | None) -> str:
    name, friend = rng.sample(NAMES, 2)
    item, other = rng.sample(ITEMS, 2)
    words = {"name": name, "friend": friend, "item": item, "other": other}
    sentences = [rng.choice(OPENINGS).format(n=start, **words)]
    sentences += [step.wording.format(n=step.operand, **words) for step in steps]
    if distractor is not None:
        sentences.insert(rng.randint(1, len(sentences)), rng.choice(DISTRACTORS).format(n=distractor, **words))
    sentences.append(rng.choice(QUESTIONS).format(**words))
    return " ".join(sentences).replace(" .", ".").replace(" ?", "?")


def write_trace(start: int, steps: tuple[Step, ...], slips: tuple[int, ...] | None = None) -> str:
    """Writes the trace of `steps`; `slips` are added to the results and carry through."""
    value, lines = start, []
    for step, slip in zip(steps, slips or (0,) * len(steps), strict=True):
        result = value_after(value, step) + slip
        lines.append(f"{value} {step.operation} {step.operand} = {result}")
        value = result
    return format_trace("\n".join(lines), str(value))


def annotate(problem: Problem, rng: random.Random, errors: AnnotatorConfig, max_value: int) -> str:
    """The annotator's trace, right or wrong, with every number in 0..max_value."""
    while True:  # draw again if an error leaves the range of numbers
        steps = []
        for step in problem.steps:
            if step.wording in MISREADINGS and rng.random() < errors.misread:
                step = replace(step, operation=MISREADINGS[step.wording])
            if problem.distractor is not None and rng.random() < errors.distracted / len(problem.steps):
                step = replace(step, operand=problem.distractor)
            steps.append(step)
        slips = tuple(rng.choice((-2, -1, 1, 2)) if rng.random() < errors.slip else 0 for _ in steps)
        value, values = problem.start, []
        for step, slip in zip(steps, slips, strict=True):
            value = value_after(value, step) + slip
            values.append(value)
        if all(0 <= value <= max_value for value in values):
            return write_trace(problem.start, tuple(steps), slips)


def generate_problems(seed: int, max_value: int, max_steps: int, distractor_rate: float) -> Iterator[Problem]:
    """Yields problems endlessly, no two with the same text; equal seeds yield equal streams."""
    rng, seen = random.Random(seed), set()
    while True:
        problem = sample_problem(rng, max_value, max_steps, distractor_rate)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def expert_record(problem: Problem, record_id: str, system_prompt: str) -> Record:
    target = write_trace(problem.start, problem.steps)
    answer = extract_answer(target)
    assert answer is not None
    return Record(record_id, make_prompt(problem.question, system_prompt), target, answer)


def first_wrong_step(trace: str, expert: str) -> int | None:
    """The first step (1-based) at which `trace` departs from the expert's solution, or None.

    Steps are compared in a canonical form: the operands of + and * may be swapped and spacing is free. A missing step
    counts as wrong at its place; the answer is the last step.
    """
    ours, theirs = _steps(trace), _steps(expert)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        if a != b:
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs)) + 1


def _steps(trace: str) -> list[tuple[str, ...]]:
    """Steps in a canonical form: split into words, with the operands of commutative operations sorted."""
    canonical = []
    for start, end in step_spans(trace):
        words = _WORD.findall(trace[start:end])
        if len(words) == 5 and words[1] in ("+", "*"):
            words = [*sorted((words[0], words[2])), words[1], *words[3:]]
        canonical.append(tuple(words))
    if extract_answer(trace) is None:
        canonical.append(("no answer",))
    return canonical


def vocabulary(max_value: int) -> list[str]:
    """Every word that can occur in a problem or a trace, with numbers as single words."""
    sentences = [*OPENINGS, *DISTRACTORS, *QUESTIONS, *(w for group in WORDINGS.values() for w in group)]
    words = {word for sentence in sentences for word in sentence.split() if not word.startswith("{")}
    layout = ["\n", *format_trace("", "").split(), *OPERATIONS, "="]
    return [*layout, *sorted(words | {*NAMES, *ITEMS}), *map(str, range(max_value + 1))]
