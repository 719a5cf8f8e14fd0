"""The reward function as TRL calls it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from trl.trainer.utils import get_callable_name

from reasoning_irl.data.records import Record
from reasoning_irl.models.reward_function import RewardFunction
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.errors import DataError

MORE: dict[str, Any] = {"completion_ids": [[1]] * 3, "trainer_state": None, "answer": ["8"] * 3}


def messages(text: str, role: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


@pytest.fixture
def model(make_reward_model: Callable[..., RewardModel]) -> RewardModel:
    model = make_reward_model()
    with torch.no_grad():
        model.backbone.score.weight.mul_(50)  # so that scores differ visibly
    return model.eval()


def test_chat_messages_and_plain_text_give_the_totals(model: RewardModel, records: list[Record]) -> None:
    reward = RewardFunction(model, batch_size=2)
    assert get_callable_name(reward) == "reasoning_reward"
    questions, targets = [r.question for r in records[:3]], [r.target for r in records[:3]]
    expected = [model.score(q, t).total for q, t in zip(questions, targets, strict=True)]
    assert len({round(total, 3) for total in expected}) == 3
    assert reward(prompts=questions, completions=targets, **MORE) == pytest.approx(expected, abs=1e-5)
    # Another policy's system prompt is not the reward model's.
    prompts = [messages("Think.", "system") + messages(q, "user") for q in questions]
    completions = [messages(t, "assistant") for t in targets]
    assert reward(prompts=prompts, completions=completions, **MORE) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_writing_nothing_is_never_better_than_writing(model: RewardModel, records: list[Record], sign: int) -> None:
    """Trap: an end token alone avoids everything that could be wrong in a text."""
    reward, question = RewardFunction(model), records[0].question
    with torch.no_grad():
        model.backbone.score.weight.mul_(sign)
    texts = ["", records[0].target, "\n ", "<think>\n3\n</think>"]
    empty, good, blank, short = reward(prompts=[question] * 4, completions=texts)
    assert max(empty, blank) <= min(good, short)
    alone = model.score(question, "").total
    assert empty == pytest.approx(min(alone, good, short), abs=1e-5)
    assert reward(prompts=[question], completions=[""]) == pytest.approx([alone], abs=1e-5)


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        (None, r"completions\[0\] has no text"),
        ([], r"completions\[0\] has no text"),
        (messages("x", "assistant") + messages("y", "tool"), r"completions\[0\] has 2 messages"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "x"}]}], r"completions\[0\] has no text"),
    ],
)
def test_completion_without_its_text_is_refused(model: RewardModel, completion: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RewardFunction(model)(prompts=["How many?"], completions=[completion])
