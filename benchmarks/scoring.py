"""Measures tokens per second of scoring traces, compared with a bare forward pass over as many tokens.

    python benchmarks/scoring.py [--traces N] [--hidden H] [--layers L] [--batch B] [--repeats R]

The bare pass runs the same backbone on full batches of one length, with no bookkeeping and no padding. Prints the best
of the repeats for both, and their ratio.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from reasoning_irl.config.schema import EmbeddedModelConfig, Granularity, RewardHead
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.scoring.generation import on_best_device
from reasoning_irl.models.batches import score_by_length
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model


def seconds(work: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--traces", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedModelConfig(arguments.hidden, arguments.layers, 4, 0.02, 1024)
        save_embedded(embedded, 40, Path(folder))
        tokenizer = load_tokenizer(folder)
        spec = RewardSpec(RewardHead.plain, Granularity.dense, 15)
        model = on_best_device(build_reward_model(folder, spec, tokenizer).eval())
    vocabulary = len(tokenizer)

    def trace() -> TokenSequence:
        prompt, completion = rng.randint(40, 120), min(400, max(40, round(rng.gauss(250, 80))))
        ids = [rng.randrange(4, vocabulary) for _ in range(prompt + completion)]
        return TokenSequence(tuple(ids[:prompt]), tuple(ids[prompt:]))

    traces = [trace() for _ in range(arguments.traces)]
    n_tokens = sum(len(t.prompt_ids) + len(t.completion_ids) for t in traces)
    length = round(n_tokens / len(traces))
    ids = torch.randint(4, vocabulary, (arguments.batch, length), device=model.device)
    n_batches = n_tokens / (arguments.batch * length)

    @torch.no_grad()
    def bare() -> None:
        for _ in range(round(n_batches)):
            model.backbone(input_ids=ids, use_cache=False)

    def scored() -> None:
        score_by_length(traces, model.rewards, tokenizer.pad_token_id, arguments.batch, list, model.device)

    bare_rate = round(n_batches) * arguments.batch * length / seconds(bare, arguments.repeats)
    scored_rate = n_tokens / seconds(scored, arguments.repeats)
    print(f"bare forward {bare_rate:,.0f} tokens/s, scoring {scored_rate:,.0f} tokens/s: {scored_rate / bare_rate:.3f}")


if __name__ == "__main__":
    main()
