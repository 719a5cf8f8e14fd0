"""Evaluation with vLLM, which needs a GPU: here a stand-in with the parts of its interface that are used."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from reasoning_irl.eval.evaluate import run_evaluation
from reasoning_irl.eval.scoring.vllm_engine import VLLMEngine, buffer_rank
from reasoning_irl.models.backend import check_engine
from reasoning_irl.utils.errors import UserError
from tests.helpers.configs import eval_config
from tests.helpers.traces import read_rows


class LLM:
    """Samples one token at a time with transformers, each sequence with its own seed, as vLLM does."""

    scale = 1.0  # of the logits: anything but 1 is another model
    seeds: list[int] = []  # noqa: RUF012 (of all calls)

    def __init__(self, model: str, **settings: Any) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model)
        self._longest = settings["max_model_len"]
        self.started_with = {"model": model, **settings}

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[dict[str, list[int]]], sampling_params: Sequence[SimpleNamespace], **_: Any
    ) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(outputs=[self._completion(prompt["prompt_token_ids"], p, p.seed + k) for k in range(p.n)])
            for prompt, p in zip(prompts, sampling_params, strict=True)
        ]

    def _completion(self, prompt: list[int], parameters: SimpleNamespace, seed: int) -> SimpleNamespace:
        self.seeds.append(seed)
        source = torch.Generator().manual_seed(seed)
        ids: list[int] = []
        logprobs: list[dict[int, SimpleNamespace]] = []
        while len(ids) < parameters.max_tokens and not (ids and ids[-1] in parameters.stop_token_ids):
            logits = self.scale * self._model(input_ids=torch.tensor([prompt + ids])).logits[0, -1]
            token = int(torch.multinomial(logits.softmax(-1), 1, generator=source))
            ids.append(token)
            logprobs.append({token: SimpleNamespace(logprob=float(logits.log_softmax(-1)[token]))})
        assert len(prompt) + len(ids) <= self._longest
        return SimpleNamespace(token_ids=ids, logprobs=logprobs)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    package, requests = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.__dict__.update(LLM=LLM, SamplingParams=SimpleNamespace)
    requests.__dict__.update(LoRARequest=lambda *_: None)
    for module in (package, ModuleType("vllm.lora"), requests):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(LLM, "seeds", [])
    return LLM


def evaluated(run: Path, out: Path) -> dict[str, Any]:
    settings = ("sampling.engine=vllm", "sampling.top_p=1", "eval.ks=[1,2]", "sampling.max_completion_length=12")
    return run_evaluation(eval_config(f"run_dir={run}", f"output_dir={out}", *settings))


def test_samples_of_vllm_are_scored_like_any_others(run_dir: Path, tmp_path: Path, vllm: type[LLM]) -> None:
    metrics = evaluated(run_dir, tmp_path)
    rows = read_rows(tmp_path / "traces.jsonl")
    assert [row["sample"] for row in rows] == [0, 1] * 7
    assert all(len(row["token_ids"]) == 12 or not row["truncated"] for row in rows)
    assert metrics["engine_logprob_gap"] < 1e-4
    # Trap: with one seed for all, the samples of a problem are equal, and problems share their luck.
    assert len(set(vllm.seeds)) == len(rows) == 14


def test_samples_of_another_model_are_noticed(
    run_dir: Path, tmp_path: Path, vllm: type[LLM], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: an adapter that vLLM ignores gives plausible samples of the base model."""
    monkeypatch.setattr(vllm, "scale", 0.5)
    with caplog.at_level(logging.WARNING):
        metrics = evaluated(run_dir, tmp_path)
    assert metrics["engine_logprob_gap"] > 0.1
    assert "did it sample another model?" in caplog.text


@pytest.mark.usefixtures("vllm")
def test_adapter_is_served_on_its_base_model_in_a_buffer_that_vllm_has(run_dir: Path, tmp_path: Path) -> None:
    base = str(run_dir / "checkpoint-10")
    LoraConfig(r=3, base_model_name_or_path=base).save_pretrained(tmp_path)
    engine: Any = VLLMEngine(str(tmp_path), eval_config(f"run_dir={run_dir}").sampling, [2])
    settings = engine._llm.started_with
    assert (settings["model"], settings["enable_lora"], settings["max_lora_rank"]) == (base, True, 8)


@pytest.mark.parametrize(("rank", "size"), [(1, 8), (8, 8), (24, 32), (128, 128), (257, 320)])
def test_adapter_fits_a_buffer_of_vllm(rank: int, size: int) -> None:
    """Trap: vLLM refuses to start for a rank that is not one of its sizes."""
    assert buffer_rank(rank) == size


def test_adapter_that_vllm_cannot_serve_is_refused() -> None:
    with pytest.raises(UserError, match=r"rank 512 at most, not 1024: set sampling\.engine=transformers"):
        buffer_rank(1024)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    ("override", "says"), [("sampling.engine=vllm", "sampling.engine=transformers"), ("", "load_in_4bit=false")]
)
def test_engine_that_cannot_run_is_refused(override: str, says: str) -> None:
    overrides = ["sampling.engine=vllm", *([override] if override else ["sampling.load_in_4bit=true"])]
    with pytest.raises(UserError, match=says):
        check_engine(eval_config("run_dir=run", "output_dir=out", *overrides).sampling)
