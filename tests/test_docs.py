"""The Python code of the documents is executed with a tiny reward model, and their commands are checked."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from reasoning_irl.cli.main import main
from reasoning_irl.metrics.reading import Reading
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.utils.programs import PROGRAMS
from tests.docs_check import README, blocks, commands
from tests.helpers.commands import REPOSITORY

SERVING = REPOSITORY / "docs" / "serving.md"
# Arguments that keep training short.
SHORT = "max_completion_length=8, max_steps=1, logging_steps=1, save_strategy='no', report_to='none', use_cpu=True"
NUMBER = re.compile(r" *-?\d+\.\d\d")


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


HYDRA = {program.script: program.subcommand for program in PROGRAMS if program.script.endswith(".py")}
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
OTHER_PROGRAMS = {"pip", "conda", "pre-commit", "git", "trl"}


@pytest.mark.parametrize("line", commands())
def test_documented_command_is_one_that_the_project_has(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra programs compose with these keys; of the others the file and its options exist."""
    words = shlex.split(line.replace("SCRIPT.py", "irl_train.py"))
    while re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):  # environment
        words = words[1:]
    if words[0] in ("accelerate", "torchrun"):
        at = next(n for n, word in enumerate(words) if word in HYDRA)
        assert all((REPOSITORY / word).is_file() for word in words[:at] if word.endswith(".yaml"))
        words = ["python", *words[at:]]
    if words[:2] == ["bash", "runner_scripts/0_run_gpu_node.sh"]:
        words = ["python", *words[2:]]
    match words:
        case ["make", *rest]:
            targets = [word for word in rest if "=" not in word]
            assert set(targets) <= TARGETS
        case ["python", script, *arguments] if script in HYDRA:
            composes(HYDRA[script], arguments, monkeypatch)
            assert capsys.readouterr().out
        case ["reasoning-irl", subcommand, *arguments]:
            composes(subcommand, arguments, monkeypatch)
            assert capsys.readouterr().out
        case ["python", "-m", module, *arguments]:
            has_options(Path(*module.split(".")), arguments)
        case ["python" | "bash", script, *arguments]:
            has_options(Path(script), arguments)
        case [program, *_]:
            assert program in OTHER_PROGRAMS


def composes(subcommand: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if "-m" in arguments:  # of a sweep, its first run
        arguments = [re.sub(r"(?<==)(\[.*?\]|[^,]*),.*", r"\1", word) for word in arguments if word != "-m"]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main() sets it for Hydra
    monkeypatch.setattr("sys.argv", ["reasoning-irl", subcommand, *arguments, "--cfg=job"])
    assert not main()


def has_options(path: Path, arguments: list[str]) -> None:
    places = [REPOSITORY / path, *(root / path.with_suffix(".py") for root in (REPOSITORY, REPOSITORY / "src"))]
    places += [REPOSITORY / path / "__main__.py"]
    file = next(place for place in places if place.is_file())
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert all(option in file.read_text() for option in options)
