"""The exported folder, read by transformers alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from reasoning_irl.config.schema import IRLTrainConfig
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import encode_prompt
from reasoning_irl.export import export, main, upload
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.training import jobs
from reasoning_irl.utils.errors import UserError

QUESTION = "Tom has 5 apples. Tom finds 3 more. How many apples are there now?"
TRACE = "<think>\n5 + 3 = 8\n</think>\n<answer>\n8\n</answer>"
Tiny = Callable[[list[str]], IRLTrainConfig]


def train(tiny_config: Tiny, folder: Path, *overrides: str) -> Path:
    small = ["warm_start.enabled=false", "training.max_steps=1", "training.save_steps=1", "guard.enabled=false"]
    small += ["training.per_device_train_batch_size=4", "training.num_generations=2", "model.reward_warmup_steps=3"]
    small += ["model.reward_batch_size=4", "model.reward_policy_batch_size=4", "model.reward_learning_rate=0.05"]
    jobs.train_airl(tiny_config([*small, f"training.output_dir={folder}", *overrides]))
    return folder


@pytest.mark.parametrize("lora", [0, 4])
def test_transformers_alone_gives_the_same_scores(tiny_config: Tiny, tmp_path: Path, lora: int) -> None:
    plain = ["model.reward_head=plain", "model.reward_lm_coef=0", f"model.reward_lora.rank={lora}"]
    run = train(tiny_config, tmp_path / "run", *plain)
    export(run, tmp_path / "exported")
    scored = RewardModel.from_run(run).score(QUESTION, TRACE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "exported")
    assert model.config.num_labels == 1
    prompt = encode_prompt(tokenizer, make_prompt(QUESTION, ""))
    completion = tokenizer(TRACE, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prompt, *completion, tokenizer.eos_token_id]])
    with torch.no_grad():
        rewards = model(input_ids=ids).logits[0, len(prompt) :, 0]
    torch.testing.assert_close(rewards, torch.tensor(scored.rewards), rtol=1e-5, atol=1e-5)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "demonstrations" in card
    assert "AutoModelForTokenClassification" in card


def test_likelihood_head_can_be_computed_as_the_model_card_says(tiny_config: Tiny, tmp_path: Path) -> None:
    run = train(tiny_config, tmp_path / "run")
    export(run, tmp_path / "exported")
    scored = RewardModel.from_run(run).score(QUESTION, TRACE)
    again = RewardModel.from_run(tmp_path / "exported").score(QUESTION, TRACE)
    torch.testing.assert_close(again.rewards, scored.rewards)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "exported")
    head = load_file(tmp_path / "exported" / "likelihood_head.safetensors")
    prompt = encode_prompt(tokenizer, make_prompt(QUESTION, ""))
    completion = [*tokenizer(TRACE, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        output = model(input_ids=ids, output_hidden_states=True)
        logits = output.hidden_states[-1][0] @ model.get_input_embeddings().weight.T
    log_p = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(completion)[:, None])[:, 0]
    rewards = output.logits[0, len(prompt) :, 0] + head["scale"] * log_p + head["bias"]
    torch.testing.assert_close(rewards, torch.tensor(scored.rewards), rtol=1e-4, atol=1e-5)
    assert "scale * log p" in (tmp_path / "exported" / "README.md").read_text()


def test_score_has_tokens_offsets_steps_and_total(tiny_config: Tiny, tmp_path: Path) -> None:
    scored = RewardModel.from_run(train(tiny_config, tmp_path / "run")).score(QUESTION, TRACE)
    assert "".join(scored.tokens) == TRACE
    assert [TRACE[start:end] for start, end in scored.offsets] == scored.tokens
    assert scored.steps == ["5 + 3 = 8", "8"]
    assert len(scored.step_scores) == 2
    assert scored.total == pytest.approx(sum(scored.rewards) / len(scored.rewards))
    inside = [r for t, r in zip(scored.tokens, scored.rewards, strict=True) if t.strip() in {"5", "+", "3", "="}]
    assert min(inside) <= scored.step_scores[0] <= max(scored.rewards)


def test_export_overwrites_nothing_and_needs_a_reward_model(tiny_config: Tiny, tmp_path: Path) -> None:
    run = train(tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match="not empty"):
        export(run, run)
    with pytest.raises(UserError, match="not a run folder"):
        export(tmp_path / "nowhere", tmp_path / "x")


def test_exported_model_is_read_as_its_run_was_evaluated(tiny_config: Tiny, tmp_path: Path) -> None:
    run = train(tiny_config, tmp_path / "run")
    chosen = {"choice/reward/aggregation": "min", "choice/reward/aggregation/by": "auroc on validation"}
    (run / "metrics.json").write_text(json.dumps(chosen))
    export(run, tmp_path / "exported")
    scored = RewardModel.from_run(tmp_path / "exported").score(QUESTION, TRACE)
    assert (scored.aggregation, scored.total) == ("min", min(scored.rewards))


@pytest.mark.parametrize(
    ("repository", "token", "message"),
    [
        ("a/b/c", "x", "--push-to-hub a/b/c is not a name of the hub"),
        ("someone/reward", None, "--push-to-hub needs a login"),
    ],
)
def test_upload_that_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    repository: str,
    token: str | None,
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    assert main([str(tmp_path), str(tmp_path / "new"), "--push-to-hub", repository]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()


def test_failed_upload_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="is written, but cannot be uploaded to someone/reward: ") as caught:
        upload(tmp_path, "someone/reward")
    assert len(str(caught.value).splitlines()) == 1


def test_policy_of_a_checkpoint_is_an_ordinary_model(tiny_config: Tiny, tmp_path: Path) -> None:
    run = train(tiny_config, tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(run / "checkpoint-1")
    assert not (run / "README.md").exists()  # the trainer's own card would be wrong; see model_card.py
