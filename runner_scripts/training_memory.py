"""Measures the peak memory of one training step of each experiment, at its real shapes, without a GPU.

    python runner_scripts/training_memory.py [PATTERN]     # minutes; writes runner_scripts/training_memory.json

The step is run for real, with this project's discriminator, policy log-probabilities and PEFT, on tensors that have a
shape and no storage (PyTorch's FakeTensor), so an 8B model needs no memory. What is tracked is the size of every
tensor alive at a time: weights, activations, gradients and optimiser states. Prompts and completions have the longest
lengths that the config allows. What a GPU adds is not in it: the CUDA context, fragmentation, and the workspace of
kernels; nor is what Unsloth changes (it should need less).
"""

import json
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, only runner_scripts/ is on the path
from peft import TaskType
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    get_scheduler,
)

from reasoning_irl.config import schema
from reasoning_irl.data.tokens import TokenBatch
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.loading import with_lora
from reasoning_irl.models.logprobs import token_logps, with_fused_head
from reasoning_irl.models.reward_model import RewardModel, RewardSpec
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, Origin
from reasoning_irl.training.losses import token_policy_loss
from reasoning_irl.training.preflight import MOMENTS
from reasoning_irl.utils.sizes import FOUR_BIT, GIB
from runner_scripts.experiments import SHAPES, Shape, experiments, training_config

MEASURED = Path(__file__).with_suffix(".json")
TOKENIZER = build_tokenizer(40)  # any: only the ids' shape matters


class MemoryTracker(TorchDispatchMode):
    """Adds up the sizes of all tensors alive that were made within it, with or without storage."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0  # bytes
        self.peak = 0
        self._alive: dict[int, Any] = {}

    def track(self, tensor: Tensor) -> None:
        """Counts a tensor that was made elsewhere."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def freed(_: Any) -> None:
            self.live -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and isinstance(args[0], FakeTensor):
            args = (args[0], _without_masks(args[1]))
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1.0  # there is no value
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self.track(value)
        return output


def _without_masks(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Real masks as the indices of their ones: how many they choose cannot be known from a shape."""
    found: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool
        found.extend(index.nonzero(as_tuple=True) if is_mask and index is not None else [index])
    return found


class _Dequantised(torch.autograd.Function):
    """x @ W.T of a weight stored in 4 bits, which is expanded for the product only, as bitsandbytes does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: tuple[int, int], bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = shape
        return nn.functional.linear(x, packed.new_empty(shape, dtype=x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (packed,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ packed.new_empty(ctx.shape, dtype=gradient.dtype), None, None, None


class FourBitLinear(nn.Linear):
    """A frozen linear layer with the memory of bitsandbytes' Linear4bit."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, "meta", torch.bfloat16)
        packed = torch.empty(round(FOUR_BIT * layer.weight.numel()), dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _Dequantised.apply(x, self.weight, (self.out_features, self.in_features), self.bias)
        return output


def in_four_bits(model: nn.Module) -> None:
    """Replaces the linear layers but the heads, as `load_in_4bit` does."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name not in ("lm_head", "score"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, FourBitLinear(module))


def without_storage(model: nn.Module, tracker: MemoryTracker) -> None:
    """Gives a model on the meta device tensors that behave like a device's, and counts them."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    known: dict[int, Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is None or not value.is_meta:
                    continue
                if id(value) not in known:
                    fake = mode.fake_tensor_converter.from_meta_and_device(mode, value.detach(), torch.device("cpu"))
                    tracker.track(fake)
                    is_parameter = tensors is module._parameters
                    known[id(value)] = nn.Parameter(fake, value.requires_grad) if is_parameter else fake
                tensors[name] = known[id(value)]  # type: ignore[assignment]


def architecture(name: str, shape: Shape) -> PretrainedConfig:
    """The config of a Llama or Qwen2 model of this shape."""
    kind = Qwen2Config if "Qwen" in name else LlamaConfig
    config = kind(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.is_tied,
    )
    config.head_dim = shape.head_size
    return config


def build(auto: Any, name: str, lora: schema.LoraConfig, task: TaskType, in_4bit: bool, **more: Any) -> Any:
    """A model with its adapter on the meta device, with the dtypes that training has on a GPU."""
    config = architecture(name, SHAPES[name])
    config.num_labels = 1
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.bfloat16 if lora.rank else torch.float32, **more)
        if in_4bit:
            in_four_bits(model)
        return with_lora(model, lora, task)


def full_rows(n_rows: int, training: schema.TrainingConfig) -> TokenBatch:
    """A batch of real ids whose prompts and completions have the longest lengths."""
    prompt, completion = (
        torch.ones(n_rows, width, dtype=torch.long)
        for width in (training.max_prompt_length, training.max_completion_length)
    )
    return TokenBatch(prompt, prompt, completion, completion)


@dataclass
class StepMemory:
    """Bytes: what stays between phases, and the highest of each phase, with what stays."""

    resident: int
    policy: int
    reward: int | None  # None without a reward model


def step_memory(config: schema.PolicyTrainConfig) -> StepMemory:
    """Runs the backward passes of one training step of a config, without storage."""
    model, training = config.model, config.training
    tracker = MemoryTracker()
    with tracker:
        policy = build(
            AutoModelForCausalLM, model.policy_name, model.policy_lora, TaskType.CAUSAL_LM, model.load_in_4bit
        )
        without_storage(policy, tracker)
        held = [_moments(policy, MOMENTS[training.optim], tracker)]
        discriminator = None
        if isinstance(config, schema.IRLTrainConfig):
            discriminator = _discriminator(config, tracker)
            held.append(_moments(discriminator.model, MOMENTS[schema.Optimizer.adamw_torch], tracker))
            # The states are in `held`; what the optimiser adds is not counted twice.
            discriminator.optimizer = torch.optim.SGD(discriminator.parameters, lr=0.0)
            discriminator.scheduler = get_scheduler("constant", discriminator.optimizer)
        resident, tracker.peak = tracker.live, tracker.live
        reward = None
        if discriminator is not None and isinstance(config, schema.IRLTrainConfig):
            discriminator.update(_labelled(config))
            reward, tracker.peak = tracker.peak, tracker.live
        _policy_step(policy, config)
        return StepMemory(resident, tracker.peak, reward)


def _moments(model: nn.Module, bytes_per_weight: int, tracker: MemoryTracker) -> Tensor:
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    states = torch.empty(n * bytes_per_weight, dtype=torch.uint8, device="meta")
    tracker.track(states)
    return states


def _discriminator(config: schema.IRLTrainConfig, tracker: MemoryTracker) -> Discriminator:
    model = config.model
    name = model.reward_name or model.policy_name
    backbone = build(AutoModelForTokenClassification, name, model.reward_lora, TaskType.TOKEN_CLS, model.load_in_4bit)
    spec = RewardSpec(
        schema.RewardHead.plain, model.reward_granularity, model.reward_interval, dtype=schema.Dtype.bfloat16
    )
    reward_model = RewardModel(backbone, None, spec, TOKENIZER)
    if config.training.gradient_checkpointing:
        reward_model.checkpoint_layers()
    without_storage(reward_model, tracker)
    return Discriminator(reward_model, model, total_updates=1)


def _labelled(config: schema.IRLTrainConfig) -> LabelledBatch:
    model = config.model
    counts = {
        Origin.expert: model.reward_batch_size,
        Origin.policy: model.reward_policy_batch_size,
        Origin.perturbed: model.reward_batch_size * model.num_neg_perturbations_per_expert,
    }
    origin = torch.tensor([kind for kind, n in counts.items() for _ in range(n)])
    return LabelledBatch(full_rows(len(origin), config.training), origin, torch.zeros_like(origin))


def _policy_step(policy: Any, config: schema.PolicyTrainConfig) -> None:
    training = config.training
    rows = training.per_device_train_batch_size
    if isinstance(config, schema.IRLTrainConfig) and config.model.add_expert_to_policy_optim:
        rows += rows // training.num_generations
    if training.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    policy.train()
    tokens = full_rows(rows, training)
    with torch.autocast("cpu", torch.bfloat16):
        logps = token_logps(with_fused_head(policy), tokens)[0]
    token_policy_loss(logps, logps.detach(), torch.zeros(logps.shape), 0.2).loss.sum().backward()


def settings_of(config: schema.PolicyTrainConfig) -> dict[str, Any]:
    """All settings on which the memory depends: a stored measurement is of these."""
    model, training = config.model, config.training
    found: dict[str, Any] = {
        "policy": [model.policy_name, model.policy_lora.rank, model.load_in_4bit, model.dtype.value],
        "rows": training.per_device_train_batch_size,
        "length": [training.max_prompt_length, training.max_completion_length],
        "checkpointed": training.gradient_checkpointing,
        "optimiser": training.optim.value,
    }
    if isinstance(config, schema.IRLTrainConfig):
        reward = config.model
        found["reward"] = [reward.reward_name, reward.reward_lora.rank, reward.reward_head.value]
        found["update"] = [reward.reward_batch_size, reward.reward_policy_batch_size, reward.reward_micro_batch_size]
        found["loss"] = [reward.classifier_loss.value, reward.num_neg_perturbations_per_expert]
        found["expert_in_group"] = [reward.add_expert_to_policy_optim, config.training.num_generations]
    return found


def main(pattern: str = "") -> None:
    stored = json.loads(MEASURED.read_text()) if MEASURED.is_file() else {}
    for name, _ in experiments():
        if pattern not in name:
            continue
        config, start = training_config(name), time.perf_counter()
        memory = step_memory(config)
        reward = None if memory.reward is None else round(memory.reward / GIB, 1)
        stored[name] = {
            "settings": settings_of(config),
            "GiB": {"resident": round(memory.resident / GIB, 1), "policy": round(memory.policy / GIB, 1)}
            | ({} if reward is None else {"reward": reward}),
        }
        print(f"{name}: {stored[name]['GiB']} ({time.perf_counter() - start:.0f} s)", flush=True)
        MEASURED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
