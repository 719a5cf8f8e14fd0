"""What reaches TRL's arguments."""

from collections.abc import Callable

from reasoning_irl.config.schema import IRLTrainConfig
from reasoning_irl.training.arguments import grpo_arguments


def test_vllm_server_reaches_the_library(tiny_config: Callable[..., IRLTrainConfig]) -> None:
    """Trap: without its mode, the library starts an engine in each process and ignores the address."""
    args = grpo_arguments(tiny_config(["model.fast_inference=true", "model.vllm_server=http://node:8000"]))
    assert (args.use_vllm, args.vllm_mode, args.vllm_server_base_url) == (True, "server", "http://node:8000")
