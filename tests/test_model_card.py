"""The card of a run folder and of an exported reward model, read again by the hub's own library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from reasoning_irl.config.schema import IRLTrainConfig
from reasoning_irl.model_card import refresh_run_card, write_reward_card
from reasoning_irl.training.run import run_training

METRICS: dict[str, Any] = {
    "supervision": "demonstrations",
    "policy": "outputs/run/checkpoint-1",
    "pass@1": 0.52345,
    "pass@1/low": 0.4,
    "pass@1/high": 0.6,
    "choice/reward/aggregation": "mean",
    "choice/reward/model": "checkpoint-1/reward_model",
    "choice/reward/traces": "traces.jsonl",
    "reward/auroc": 0.75,
    "reward/auroc/low": 0.7,
    "reward/auroc/high": 0.8,
    "reward/rerank@1|8": 0.5,
    "logprob/auroc": 0.9,
}


@pytest.fixture(scope="module")
def run(tiny_config: Callable[[list[str]], IRLTrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, started as the scripts start it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ["warm_start.enabled=false", "training.max_steps=1", "training.save_steps=1", "guard.enabled=false"]
    small += ["training.per_device_train_batch_size=4", "training.num_generations=2", "model.reward_warmup_steps=0"]
    run_training(tiny_config([*small, f"training.output_dir={folder}"]))
    return folder


def card_after(run: Path, **changes: Any) -> ModelCard:
    (run / "metrics.json").write_text(json.dumps(METRICS | {key.replace("_of_", "/"): v for key, v in changes.items()}))
    refresh_run_card(run, run)
    return ModelCard.load(run / "README.md")


def results(card: ModelCard) -> dict[str, tuple[float, str]]:
    return {result.metric_name: (result.metric_value, result.dataset_name) for result in card.data.eval_results or []}


def test_card_of_a_run_is_true(run: Path) -> None:
    """Trap: the library's own card, 'a fine-tuned version of None, trained with GRPO'."""
    card = ModelCard.load(run / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert (card.data.base_model, card.data.license, card.data.datasets, card.data.eval_results) == (None,) * 4
    for row in (
        "| supervision | demonstrations |",
        "| algorithm | adversarial IRL, arXiv 2510.01857 (bce discriminator) |",
        "| data | arithmetic, generated |",
        "| started from | embedded |",
        "| steps | 1 |",
    ):
        assert row in card.text
    assert "Not evaluated yet" in card.text
    assert not [word for word in ("GRPO", "None", "warm start", str(run.parent)) if word in card.text]


def test_card_has_the_metrics_of_this_checkpoint_alone(run: Path) -> None:
    card = card_after(run)
    assert results(card) == {
        "pass@1": (0.5234, "arithmetic"),
        "reward/auroc": (0.75, "arithmetic"),
        "reward/rerank@1|8": (0.5, "arithmetic"),
    }
    assert "| pass@1 | 0.523 [0.400, 0.600] |" in card.text
    assert r"| reward/rerank@1\|8 | 0.500 |" in card.text
    other = card_after(run, policy="outputs/run/checkpoint-9")
    assert set(results(other)) == {"reward/auroc", "reward/rerank@1|8"}
    other = card_after(run, choice_of_reward_of_traces="/elsewhere/labelled.jsonl")
    assert results(other)["reward/auroc"] == (0.75, "labelled.jsonl")
    assert results(other)["pass@1"] == (0.5234, "arithmetic")
    other = card_after(run, choice_of_reward_of_model="/elsewhere/reward_model")
    assert set(results(other)) == {"pass@1"}
    (run / "README.md").write_text("mine")
    refresh_run_card(run, run.parent)
    assert (run / "README.md").read_text() == "mine"


def test_card_names_the_hub_models_and_data_that_a_run_used(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    started = {"policy_name": "some/policy", "reward_name": "some/reward", "reward_head": "plain"}
    config.merge_with({"model": started, "dataset": {"name": "gsm8k"}})
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoint-1").symlink_to(run / "checkpoint-1")
    OmegaConf.save(config, copy / "config.yaml")
    (copy / "README.md").touch()
    refresh_run_card(copy, copy)
    card = ModelCard.load(copy / "README.md")
    assert (card.data.base_model, card.data.datasets) == ("some/policy", ["openai/gsm8k"])
    assert "| reward model started from | some/reward |" in card.text
    assert "the terms of some/policy and of the data apply" in card.text
    write_reward_card(copy, tmp_path, "apache-2.0")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.license) == ("some/reward", "apache-2.0")
    assert card.data.pipeline_tag == "token-classification"
    assert "AutoModelForTokenClassification" in card.text
