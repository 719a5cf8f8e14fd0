"""Loads policies and tokenizers, and prepares policies for training."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from peft import (
    AutoPeftModelForCausalLM,
    LoraConfig,
    PeftConfig,
    PeftModel,
    TaskType,
    get_peft_model,
)
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasoning_irl.config import schema
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.logprobs import with_fused_head
from reasoning_irl.utils import processes
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.run_folder import CONFIG_FILE, newest_checkpoint

# Put before chat templates that print today's date, as Llama 3's do: otherwise, the prompts of a run that goes on after
# midnight differ from those of its experts. It is the date that Llama's template itself falls back to.
FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

# The seven projections that get a LoRA adapter in the published configuration.
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def policy_source(model: schema.ModelConfig, max_value: int, run_dir: Path) -> str:
    """The folder or hub name that the policy starts from; for `embedded`, saves a new model in the run folder."""
    if model.checkpoint:
        return model_of(model.checkpoint)
    if model.policy_name != "embedded":
        return model.policy_name
    folder = run_dir / "embedded"
    if processes.is_main():
        save_embedded(model.embedded, max_value, folder)
    processes.barrier()
    return str(folder)


def model_of(name: str) -> str:
    """The newest checkpoint if `name` is a run, else `name`: a model folder or a hub name."""
    return str(newest_checkpoint(Path(name))) if (Path(name) / CONFIG_FILE).is_file() else name


@contextmanager
def reading_model(name: str | Path) -> Iterator[None]:
    """Around a library's call that reads a model's files: raises UserError, in one line, for files that it cannot read.

    Every error counts, because the libraries raise whatever they stumble over in a broken file, down to a plain
    Exception of the tokenizers. So does a warning that an adapter's weights are missing: they would be random.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(no_model(str(name), error)) from error


def check_complete(name: str | Path, missing: Iterable[str]) -> None:
    """Raises UserError if weights are missing from a model's files, which would be drawn at random."""
    if keys := sorted(missing):
        raise UserError(
            f"{name} has no weights for {keys[0]}; random ones would be used: give the folder of a whole model"
        )


def local_folder(name: str | Path) -> Path:
    """The folder of this name or, if there is none, the files of the hub repository of this name, downloaded.

    Raises UserError if there is neither.
    """
    if Path(name).exists():
        return Path(name)
    try:
        return Path(snapshot_download(str(name)))
    except HFValidationError:
        raise UserError(f"there is no folder {name}: give the folder of a model or a run, or a hub name") from None
    except OSError as error:
        raise UserError(f"there is no folder {name} here, and on the hub: {no_model(str(name), error)}") from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer, ensures a pad token, and fixes the date that its chat template prints, if any.

    Raises UserError if it cannot be loaded or has no chat template.
    """
    with reading_model(name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise UserError(f"the tokenizer of {name} has no chat template: use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    template = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template and not template.startswith(FIXED_DATE):
        tokenizer.chat_template = FIXED_DATE + template
    return tokenizer


def is_adapter(name: str | Path) -> bool:
    return (Path(name) / "adapter_config.json").is_file()


def base_of(name: str) -> str:
    """The model that an adapter folder adapts; any other name as it is."""
    if not is_adapter(name):
        return name
    with reading_model(name):
        return PeftConfig.from_pretrained(name).base_model_name_or_path or name


def compute_dtype(dtype: schema.Dtype, device: torch.device | None = None) -> torch.dtype:
    """What layers compute in on a device, or on the best one there is."""
    match dtype:
        case schema.Dtype.auto:
            has_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
            return torch.bfloat16 if has_gpu else torch.float32
        case schema.Dtype.float32:
            return torch.float32
        case schema.Dtype.bfloat16:
            return torch.bfloat16
        case _:
            assert_never(dtype)


def trained_in_float32(model: nn.Module) -> None:
    """Converts the weights that are trained, whose small updates bfloat16 would round away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def weights(in_4bit: bool, frozen: bool, compute: schema.Dtype = schema.Dtype.auto) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the precision of the weights.

    Trained weights are float32; frozen ones have the dtype that is computed in, or 4 bits (NF4 with double
    quantisation, Dettmers et al. 2023, arXiv 2305.14314).
    """
    dtype = compute_dtype(compute) if frozen else torch.float32
    if not in_4bit:
        return {"dtype": dtype}
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # Includes the scalar head of a reward model, which is new and trained.
        llm_int8_skip_modules=["lm_head", "score"],
    )
    device = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    return {"dtype": dtype, "quantization_config": quantization, "device_map": device}


def load_policy(name: str, in_4bit: bool = False, frozen: bool = False) -> PreTrainedModel:
    """Loads a causal language model that `token_logps` can read; an adapter folder with its base model.

    Raises UserError if there is no such model or it is not a causal language model.
    """
    model = _causal_lm(name, in_4bit, frozen, schema.Dtype.auto)
    return with_fused_head(model if in_4bit else merged(model))  # merging into 4-bit weights would round them again


def _causal_lm(name: str, in_4bit: bool, frozen: bool, dtype: schema.Dtype) -> PreTrainedModel:
    arguments = {"trust_remote_code": False, **weights(in_4bit, frozen, dtype)}
    auto: Any = AutoPeftModelForCausalLM if is_adapter(name) else AutoModelForCausalLM
    with reading_model(name):
        if is_adapter(name):
            adapted: PreTrainedModel = auto.from_pretrained(
                name, **arguments
            )  # has the interface of the model it wraps
            return adapted
        model, info = auto.from_pretrained(name, output_loading_info=True, **arguments)
        check_complete(name, info["missing_keys"])
        whole: PreTrainedModel = model
        return whole


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapter, if it has one, added to its weights, which can then be trained."""
    if not isinstance(model, PeftModel):
        return model
    whole: Any = model.merge_and_unload()
    return whole.requires_grad_(True)  # PEFT froze them


def trainable_policy(
    model: schema.ModelConfig, source: str, max_length: int, gradient_checkpointing: bool, seed: int
) -> PreTrainedModel:
    """Loads the policy with an adapter to train, or with all weights trainable at rank 0.

    `max_length` (tokens of prompt and completion) sizes Unsloth's buffers, and `seed` its new adapter's weights. An
    existing adapter is trained further.
    """
    match model.backend:
        case schema.Backend.transformers:
            policy = _causal_lm(source, model.load_in_4bit, model.policy_lora.rank > 0, model.dtype)
            return with_lora(policy, model.policy_lora, TaskType.CAUSAL_LM)
        case schema.Backend.unsloth:
            return _unsloth_policy(model, source, max_length, gradient_checkpointing, seed)
        case _:
            assert_never(model.backend)


def with_lora(
    model: PreTrainedModel,
    lora: schema.LoraConfig,
    task: TaskType,
    n_frozen: int = 0,
) -> PreTrainedModel:
    """Adds a LoRA adapter to the projections; at rank 0, merges an existing one and leaves all weights trainable.

    An adapter that the model already has is trained further: a second one would be saved without the first. The first
    `n_frozen` layers get no new adapter. Raises UserError if the existing adapter has another rank.
    """
    if lora.rank == 0:
        return merged(model)
    if isinstance(model, PeftModel):
        return _continued(model, lora, "policy" if task == TaskType.CAUSAL_LM else "reward")
    layers = list(range(n_frozen, model.config.num_hidden_layers)) if n_frozen else None
    if layers == []:
        raise UserError("all layers are frozen, so there is none to adapt: set model.reward_lora.rank=0")
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=LORA_TARGETS, task_type=task, layers_to_transform=layers
    )
    adapted: Any = get_peft_model(model, config)  # has the interface of the model it wraps
    trained_in_float32(adapted)
    return adapted


def _continued(model: PeftModel, lora: schema.LoraConfig, whose: str) -> Any:
    """Makes a loaded adapter trainable again."""
    config: Any = model.peft_config["default"]
    if config.r != lora.rank:
        raise UserError(
            f"the {whose} starts from an adapter of rank {config.r}, which is trained further: set "
            f"model.{whose}_lora.rank={config.r}, or start from a model without an adapter"
        )
    model.set_adapter("default")
    trained_in_float32(model)
    return model


def _unsloth_policy(
    model: schema.ModelConfig, source: str, max_length: int, gradient_checkpointing: bool, seed: int
) -> PreTrainedModel:
    from unsloth import FastLanguageModel

    lora = model.policy_lora
    with reading_model(source):
        policy, _ = FastLanguageModel.from_pretrained(
            source,
            max_seq_length=max_length,
            load_in_4bit=model.load_in_4bit,
            full_finetuning=lora.rank == 0,
            fast_inference=model.fast_inference,
            max_lora_rank=max(lora.rank, 1),
            use_gradient_checkpointing="unsloth" if gradient_checkpointing else False,
            dtype=compute_dtype(model.dtype),
            # Otherwise Unsloth takes its own quantised copy of a known model, and the adapter names that as its base.
            use_exact_model_name=True,
        )
    if lora.rank == 0:
        policy = merged(policy)
        trained_in_float32(policy)
        return policy
    if isinstance(policy, PeftModel):
        return _continued(policy, lora, "policy")
    adapted: Any = FastLanguageModel.get_peft_model(
        policy,
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=LORA_TARGETS,
        use_gradient_checkpointing="unsloth" if gradient_checkpointing else False,
        random_state=seed,
    )
    assert adapted.peft_config["default"].base_model_name_or_path == source
    trained: PreTrainedModel = adapted
    return trained


def no_model(name: str, error: Exception) -> str:
    """One-line message for a model that cannot be loaded."""
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if "gated" in str(error).lower():
        return f"{name} is gated: accept its licence on its hub page and run `hf auth login`, or use a local folder"
    return f"cannot load {name}: {first_line.rstrip('.')}. Use a model folder, or a hub name you have access to."
