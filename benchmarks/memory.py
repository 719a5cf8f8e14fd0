"""Measures peak memory and time of evaluate_irl on a traces file as large as GSM8K's test set, 16 samples per problem.

    python benchmarks/memory.py [--problems P] [--samples N] [--tokens T] [--batch B] [--draws D] [--keep FOLDER]

Traces are random sums in the tokens of a tiny embedded model, which also scores them, so that reading, metrics and
writing dominate. Every row has token ids, log-probabilities and a labelled step, as evaluate.py writes them.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from reasoning_irl.config import register, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.config.schema import EmbeddedModelConfig, Granularity, IRLEvalConfig, RewardHead
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import encode_completion, encode_prompt
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.models.embedded import save_embedded
from reasoning_irl.models.loading import load_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.text.trace import step_spans


def completion(rng: random.Random, n_lines: int) -> str:
    lines = [f"{rng.randint(1, 20)} + {rng.randint(1, 19)} = {rng.randint(2, 39)}" for _ in range(n_lines)]
    return "<think>\n" + "\n".join(lines) + f"\n</think>\n<answer>\n{rng.randint(1, 39)}\n</answer>"


def row(rng: random.Random, tokenizer: Any, problem: int, sample: int, n_lines: int) -> dict[str, Any]:
    text = completion(rng, max(1, round(rng.gauss(n_lines, n_lines / 4))))
    prompt = make_prompt(f"Tom has {problem % 30} apples. Tom finds {problem // 30} more.", "")
    ids, _ = encode_completion(tokenizer, text, 10**6)
    correct = rng.random() < 0.5
    steps = [text[start:end] for start, end in step_spans(text)]
    return {
        "id": f"p{problem}",
        "prompt": prompt,
        "completion": text,
        "sample": sample,
        "correct": correct,
        "steps": steps,
        "first_error_step": None if correct else rng.randint(1, len(steps)),
        "tokens": token_pieces(tokenizer, ids),
        "prompt_ids": list(encode_prompt(tokenizer, prompt)),
        "token_ids": list(ids),
        "token_logprobs": [round(-rng.random(), 6) for _ in ids],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=int, default=1319)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="keep the files in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        rng, model = random.Random(0), folder / "model"
        save_embedded(EmbeddedModelConfig(32, 1, 2, 0.02, 1024), 40, model)
        tokenizer = load_tokenizer(str(model))
        reward = model / "reward_model"
        build_reward_model(str(model), RewardSpec(RewardHead.plain, Granularity.dense, 1), tokenizer).save(reward)
        tokenizer.save_pretrained(reward)
        per_line = len(encode_completion(tokenizer, completion(rng, 100), 10**6)[0]) / 100
        file, n_tokens = folder / "traces.jsonl", 0
        with file.open("w") as out:
            for number in range(given.problems * given.samples):
                made = row(
                    rng, tokenizer, number // given.samples, number % given.samples, round(given.tokens / per_line)
                )
                n_tokens += len(made["token_ids"])
                out.write(json.dumps(made) + "\n")
        size = file.stat().st_size
        print(
            f"{given.problems * given.samples} traces, {n_tokens} tokens, {size / 2**20:.0f} MiB; now {peak():.2f} GiB"
        )
        register()
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            overrides = [
                f"eval.traces={file}",
                f"model.reward_path={reward}",
                f"output_dir={folder / 'scored'}",
                f"eval.batch_size={given.batch}",
                f"eval.bootstrap_draws={given.draws}",
            ]
            config = to_config(compose("config_irl_eval", overrides=overrides), IRLEvalConfig)
        assert isinstance(config, IRLEvalConfig)
        start = time.perf_counter()
        run_irl_evaluation(config)
        print(f"\npeak memory {peak():.2f} GiB, {time.perf_counter() - start:.0f} s")


def peak() -> float:
    """Peak resident memory of this process in GiB (ru_maxrss on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
