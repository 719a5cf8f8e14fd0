import pytest

from reasoning_irl.config.schema import AnswerKind
from reasoning_irl.data.countdown import expert_record, generate_problems
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.rewards.options import show_options
from reasoning_irl.rewards.verifiable import answer_reward, format_reward
from reasoning_irl.text.trace import format_trace

RECORDS = [
    Record("1", make_prompt("How many?", "Think."), format_trace("3 + 4 = 7", "7"), "7"),
    Record(
        "2",
        make_prompt(show_options("Which?", {"A": "Aspirin", "B": "Heparin"}), ""),
        format_trace("A clot.", "B. Heparin"),
        "B. Heparin",
        AnswerKind.option,
    ),
    expert_record(next(generate_problems(0, 4, 25)), "3", ""),
]


def rewards(completions: list[str]) -> list[float]:
    """Calls the reward as TRL does: with prompts, completions and every other column of the rows."""
    rows = [record.as_row() for record in RECORDS]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    prompts = columns.pop("prompt")
    messages = [[{"role": "assistant", "content": text}] for text in completions]
    return answer_reward(prompts=prompts, completions=messages, trainer_state=None, **columns)


def test_every_kind_of_answer_is_rewarded_by_its_own_rule() -> None:
    assert rewards([record.target for record in RECORDS]) == [1.0, 1.0, 1.0]
    assert rewards([format_trace("x", "7 apples"), format_trace("x", "(b)"), "<answer>1 + 1</answer>"]) == [1, 1, 0]
    assert rewards([format_trace("x", "8"), format_trace("x", "A"), "no answer"]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [(format_trace("3 + 4 = 7", "8"), 1.0), ("<think>so</think>7", 0.0), ("<answer>7</answer><think></think>", 0.0)],
)
def test_format_is_rewarded_whatever_the_answer(completion: str, reward: float) -> None:
    assert format_reward([[{"role": "assistant", "content": completion}]], answer=["7"]) == [reward]
