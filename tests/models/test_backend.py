"""Missing packages and a missing GPU are reported before anything heavy loads."""

import importlib.util
from collections.abc import Callable

import pytest
import torch

from reasoning_irl.config.schema import IRLTrainConfig
from reasoning_irl.models import backend
from reasoning_irl.models.backend import check_engine, prepare_backend
from reasoning_irl.utils.errors import UserError
from tests.helpers.configs import compose_any, eval_config

LORA = ["model.policy_lora.rank=4", "model.reward_lora.rank=4"]


@pytest.mark.parametrize(
    ("overrides", "missing", "says"),
    [
        (["model.backend=unsloth"], "unsloth", "model.backend=transformers"),
        (["model.load_in_4bit=true", *LORA], "bitsandbytes", "model.load_in_4bit=false"),
    ],
)
def test_missing_package_is_named_with_the_setting_that_avoids_it(
    overrides: list[str],
    missing: str,
    says: str,
    tiny_config: Callable[..., IRLTrainConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(UserError) as caught:
        prepare_backend(tiny_config(overrides))
    assert missing in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("override", ["model.fast_inference=true", "training.optim=paged_adamw_8bit"])
def test_settings_that_need_a_gpu_are_rejected_on_a_cpu(
    override: str, tiny_config: Callable[..., IRLTrainConfig]
) -> None:
    with pytest.raises(UserError) as caught:
        prepare_backend(tiny_config([override]))
    assert override in str(caught.value)
    assert "scale=smoke" in str(caught.value)


def test_embedded_default_needs_no_extra_package(tiny_config: Callable[..., IRLTrainConfig]) -> None:
    prepare_backend(tiny_config())


def test_several_processes_are_refused(
    tiny_config: Callable[..., IRLTrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: each process would train a reward model of its own, and nothing would say so."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2.*python"):
        prepare_backend(tiny_config([]))


SHARDED = {"ACCELERATE_USE_FSDP": "true"}


@pytest.mark.parametrize(
    ("name", "overrides", "variables", "message"),
    [
        (
            "offline_irl_train",
            ["dataset.path=README.md", "dataset.samples_path=README.md", "model.reward_name=hub/model"],
            {},
            "algorithm=offline",
        ),
        ("config_irl_train", ["model.backend=unsloth"], {}, "model.backend=unsloth"),
        ("config_irl_train", ["warm_start.enabled=true", "warm_start.batch_size=9"], {}, "warm_start.batch_size=9"),
        ("config_irl_train", [], SHARDED, r"FSDP.*ddp\.yaml"),
        ("config_irl_train", [], {"ACCELERATE_USE_DEEPSPEED": "true"}, r"DEEPSPEED.*ddp\.yaml"),
        ("config_sft_train", ["model.load_in_4bit=true", "model.policy_lora.rank=2"], SHARDED, "load_in_4bit=true"),
    ],
)
def test_what_does_not_run_in_several_processes_is_refused(
    name: str, overrides: list[str], variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_any(name, *overrides)
    for key, value in ({"WORLD_SIZE": "2"} | variables).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match=message):
        prepare_backend(config)


def test_vllm_evaluation_in_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: each process would start an engine that takes half of every GPU's memory."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"sampling\.engine=vllm.*WORLD_SIZE=2"):
        check_engine(eval_config("sampling.engine=vllm", "run_dir=x").sampling)
