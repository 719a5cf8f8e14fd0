"""Checks that what a config needs is installed, before anything heavy loads, and imports Unsloth first."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

from reasoning_irl.config.schema import (
    Backend,
    Engine,
    IRLTrainConfig,
    ModelConfig,
    OfflineTrainConfig,
    Optimizer,
    SamplingConfig,
    TrainConfig,
)
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def prepare_backend(config: TrainConfig) -> None:
    """Prepares this process for a training job. Raises UserError if a required package or GPU is missing.

    Call it before importing transformers or TRL: Unsloth patches both.
    """
    _check_processes(config)
    model = config.model
    if model.load_in_4bit:
        _require("bitsandbytes", "model.load_in_4bit=true", "model.load_in_4bit=false")
    if isinstance(config, OfflineTrainConfig):
        return
    processes.start()
    assert isinstance(model, ModelConfig)
    if model.backend == Backend.unsloth:
        _require("unsloth", "model.backend=unsloth", "model.backend=transformers")
    if model.fast_inference:
        _require_gpu("model.fast_inference=true (sampling with vLLM)", "model.fast_inference=false")
        _require("vllm", "model.fast_inference=true", "model.fast_inference=false")
    if config.training.optim != Optimizer.adamw_torch:
        _require_gpu(f"training.optim={config.training.optim}", "training.optim=adamw_torch")
        _require("bitsandbytes", f"training.optim={config.training.optim}", "training.optim=adamw_torch")
    if model.backend == Backend.unsloth:
        # By default, Unsloth writes generated code into the working directory, where parallel jobs would collide.
        if "UNSLOTH_COMPILE_LOCATION" not in os.environ:
            folder = tempfile.mkdtemp(prefix="unsloth_")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ["UNSLOTH_COMPILE_LOCATION"] = folder
        import unsloth  # noqa: F401


def _check_processes(config: TrainConfig) -> None:
    """Raises UserError for what cannot run, or was never tried, in several processes or with sharded weights."""
    n, is_airl = processes.world_size(), isinstance(config, IRLTrainConfig)
    sharded_by = processes.sharded_by()
    if sharded_by and is_airl:
        raise UserError(
            f"algorithm=airl does not run with {sharded_by}, which splits the policy's weights: start it with "
            "--config_file configs/accelerate/ddp.yaml"
        )
    if sharded_by == "FSDP" and config.model.load_in_4bit:
        raise UserError("model.load_in_4bit=true cannot be split by FSDP: set it to false, or start with DDP")
    if n == 1:
        return
    if isinstance(config, OfflineTrainConfig):
        raise UserError(f"algorithm=offline runs in one process, and WORLD_SIZE={n}: start it with python")
    if config.model.backend == Backend.unsloth:
        raise UserError(
            f"model.backend=unsloth runs in one process, and WORLD_SIZE={n}: set model.backend=transformers, or start "
            "it with python"
        )
    if config.warm_start.enabled and config.warm_start.batch_size % n:
        raise UserError(
            f"warm_start.batch_size={config.warm_start.batch_size} cannot be split over {n} processes: make it a "
            "multiple, or set warm_start.enabled=false"
        )


def check_engine(sampling: SamplingConfig) -> None:
    """Raises UserError if what samples needs a package or a GPU that is missing."""
    if sampling.engine == Engine.vllm:
        if processes.world_size() > 1:
            raise UserError(
                f"sampling.engine=vllm runs in one process, and WORLD_SIZE={processes.world_size()}: set "
                "sampling.engine=transformers, or start it with python"
            )
        if sampling.load_in_4bit:
            raise UserError("sampling.engine=vllm samples in half precision: set sampling.load_in_4bit=false")
        _require("vllm", "sampling.engine=vllm", "sampling.engine=transformers")
        _require_gpu("sampling.engine=vllm", "sampling.engine=transformers")
    if sampling.load_in_4bit:
        _require("bitsandbytes", "sampling.load_in_4bit=true", "sampling.load_in_4bit=false")


def keep_from_unsloth(model: "nn.Module") -> None:
    """Keeps Unsloth from compiling a model that it did not load, and asserts that the model runs as it was built.

    Unsloth patches the classes of transformers; see docs/unsloth.md. Call it once all models are loaded.
    """
    for name, module in model.named_modules():
        module._unsloth_block_mode = 0
        assert not getattr(module, "_unsloth_fast_path", False), f"{name} runs Unsloth's code"
        if name.endswith("rotary_emb"):
            assert type(module).__module__.startswith("transformers."), f"{name} is {type(module)}"


def _require(package: str, asked_by: str, instead: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"{asked_by} needs the package {package}: install it (see environment.yaml), or set {instead}")


def _require_gpu(asked_by: str, instead: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"{asked_by} needs a GPU, and none was found: set {instead}, or scale=smoke to rehearse")
