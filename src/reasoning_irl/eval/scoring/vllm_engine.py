"""Samples with vLLM, which needs a GPU and the package; written against vLLM 0.31 and not run on a GPU yet."""

from collections.abc import Sequence
from typing import Any

from peft import PeftConfig

from reasoning_irl.config.schema import SamplingConfig
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.models.loading import base_of, is_adapter
from reasoning_irl.utils.errors import UserError

MEMORY_SHARE = 0.5  # of the GPU; the rest is for the models that score the samples
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the sizes of vLLM's buffers for an adapter


def buffer_rank(rank: int) -> int:
    """The smallest of vLLM's sizes that holds an adapter of this rank. Raises UserError if it is too large."""
    for size in RANKS:
        if rank <= size:
            return size
    raise UserError(f"vLLM serves adapters of rank {RANKS[-1]} at most, not {rank}: set sampling.engine=transformers")


class VLLMEngine:
    """A policy in vLLM: a model folder or hub name, or an adapter folder, whose base model serves the adapter.

    `load_policy` loads the same policy for its log-probabilities. Load this first: vLLM takes its share of the memory
    at once.
    """

    def __init__(self, source: str, sampling: SamplingConfig, end_ids: Sequence[int]) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._sampling, self._end_ids = sampling, list(end_ids)
        adapter: Any = PeftConfig.from_pretrained(source) if is_adapter(source) else None
        self._adapter = adapter and LoRARequest("policy", 1, source)
        self._llm = LLM(
            model=base_of(source),
            tokenizer=source,
            enable_lora=adapter is not None,
            max_lora_rank=buffer_rank(adapter.r) if adapter else RANKS[0],
            max_model_len=sampling.max_prompt_length + sampling.max_completion_length,
            gpu_memory_utilization=MEMORY_SHARE,
            generation_config="vllm",  # not the sampling defaults of the model's own folder
        )

    def sample(
        self, prompts: Sequence[Sequence[int]], seed: int
    ) -> tuple[list[list[TokenSequence]], list[list[list[float]]]]:
        """`n_samples` completions of each prompt, and the log-probability of each of their tokens.

        The log-probabilities are those at temperature 1 and without top_p. A completion includes its end token, unless
        it was truncated at the maximum length.
        """
        from vllm import SamplingParams

        n = self._sampling.n_samples
        parameters = [
            SamplingParams(
                n=n,
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_tokens=self._sampling.max_completion_length,
                stop_token_ids=self._end_ids,
                logprobs=0,  # of the sampled token only
                detokenize=False,
                seed=(seed * len(prompts) + number) * n,  # the samples of a prompt have successive seeds
            )
            for number in range(len(prompts))
        ]
        requests: Any = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._llm.generate(requests, parameters, use_tqdm=False, lora_request=self._adapter)
        samples, logprobs = [], []
        for prompt, output in zip(prompts, outputs, strict=True):
            samples.append([TokenSequence(tuple(prompt), tuple(one.token_ids)) for one in output.outputs])
            logprobs.append(
                [
                    [at[token].logprob for token, at in zip(one.token_ids, one.logprobs, strict=True)]
                    for one in output.outputs
                ]
            )
        return samples, logprobs
