import pytest

from reasoning_irl.rewards.options import find_options, read_choice, show_options

# The text of A is part of B's. D begins with a letter, and E with something that looks like an option's letter.
OPTIONS = {"A": "Aspirin", "B": "Aspirin and clopidogrel", "C": "Heparin", "D": "B cell lymphoma", "E": "E. coli"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" b ", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("**B**", "B"),
        ("Aspirin", "A"),
        ("aspirin  and\nclopidogrel.", "B"),
        ("B. Aspirin and clopidogrel", "B"),
        ("(A) aspirin", "A"),
        ("A: Aspirin", "A"),
        ("A - Aspirin", "A"),
        ("The correct answer is: (C)", "C"),
        ("Option C: Heparin", "C"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{C. Heparin}}", "C"),
        ("B cell lymphoma", "D"),
        ("D. B cell lymphoma", "D"),
        ("E. coli", "E"),
        ("E. E. coli", "E"),
    ],
)
def test_option_is_read_from_letter_or_text_or_both(answer: str, letter: str) -> None:
    assert read_choice(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "Because it thins the blood",  # letters inside words
        "A patient needs it",
        "Beta blocker",
        "cab",
        "Z",
        "B. Aspirin",  # the letter of one option, the text of another
        "A. Aspirin and clopidogrel",
        "Aspirin and heparin",
        "B or C",
        "A, B",
        "A. Aspirin or C. Heparin",  # names two options to be right with one
        "C. coli",
        "E. coli infection",
        "the answer",
    ],
)
def test_answer_that_names_no_single_option_is_not_read(answer: str | None) -> None:
    assert read_choice(answer, OPTIONS) is None


def test_letters_take_precedence_over_texts_that_are_letters() -> None:
    groups = {"A": "O", "B": "A", "C": "B", "D": "AB"}
    said = {answer: read_choice(answer, groups) for answer in ("A", "AB", "O", "B. A", "A. A")}
    assert said == {"A": "A", "AB": "D", "O": "A", "B. A": "B", "A. A": None}


def test_shown_options_are_found_again() -> None:
    question = "Which is true?\nA. of the liver\nB. of the heart"
    assert find_options(show_options(question, OPTIONS)) == OPTIONS
    assert find_options(show_options("Which?\n", {"A": "two\nlines ", "B": "b"})) == {"A": "two lines", "B": "b"}
    assert find_options(question) == {"A": "of the liver", "B": "of the heart"}


@pytest.mark.parametrize("question", ["", "Which?", "A. one\nB. two\nWhich?", "Which?\nB. two\nC. three", "A. x\nC. y"])
def test_question_without_options_at_its_end_has_none(question: str) -> None:
    assert find_options(question) == {}
