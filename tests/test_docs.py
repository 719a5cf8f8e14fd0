"""The Python code of README.md and docs/serving.md is executed, with a tiny embedded reward model in place of a run."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.metrics.reading import Reading
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.reward_model import RewardModel
from tests.helpers.commands import REPOSITORY

README, SERVING = REPOSITORY / "README.md", REPOSITORY / "docs" / "serving.md"
# Arguments that keep training short.
SHORT = "max_completion_length=8, max_steps=1, logging_steps=1, save_strategy='no', report_to='none', use_cpu=True"
NUMBER = re.compile(r" *-?\d+\.\d\d")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


@pytest.fixture
def reward(make_reward_model: Callable[..., RewardModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    model = make_reward_model()
    model.spec = replace(model.spec, reading=Reading("step_min", "auroc on validation"))
    model.save(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def run(code: str, **folders: Path) -> dict[str, Any]:
    """Executes code in which each of the names, in quotes, is replaced by a folder; returns its variables."""
    for name, folder in folders.items():
        code = code.replace(f'"{name}"', repr(str(folder)))
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


def test_readme_prints_what_it_says_up_to_the_numbers(reward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,), (printed,) = blocks(README, "python"), blocks(README, "text")
    assert '"outputs/quickstart"' in code
    run(code, **{"outputs/quickstart": reward})
    assert NUMBER.sub("#", capsys.readouterr().out) == NUMBER.sub("#", printed)


def test_serving_scores_agree_between_the_package_and_transformers(reward: Path) -> None:
    package, transformers, _ = blocks(SERVING, "python")
    scored = run(package, DIR=reward)["model"].score("Tom has 3 apples ...", "<think>\n3 + 2 = 5\n</think>")
    assert scored.aggregation == "step_min"
    found = run(transformers, DIR=reward)
    alone = RewardModel.from_run(reward).score(found["messages"][0]["content"], found["completion"])
    assert found["rewards"].tolist() == pytest.approx(alone.rewards, abs=1e-5)


def test_serving_trains_a_policy_with_the_reward(
    reward: Path, embedded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cpu_logprobs.install()
    code = blocks(SERVING, "python")[2].replace('GRPOConfig("grpo", ', f'GRPOConfig("grpo", {SHORT}, ')
    trainer = run(code, DIR=reward, MODEL=embedded_folder)["trainer"]
    logged = [row["rewards/reasoning_reward/mean"] for row in trainer.state.log_history if "reward" in row]
    assert logged
    assert all(value == value for value in logged)
