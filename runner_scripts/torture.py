"""Kills training runs at random moments, resumes them, and compares the end with a run that was left alone.

    python runner_scripts/torture.py [--kills N] [--seed S] [--out FOLDER]

Each case is trained once undisturbed. Then it is killed (SIGKILL) after a random share of that time, resumed,
and killed again, until it ends. The weights of all models must be equal bit for bit, and the rows of the logs but for
times. Prints a line per case and the sums; the exit code is 1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, only runner_scripts/ is on the path
from reasoning_irl.utils.run_folder import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
STEPS = 12
SHARED = [f"training.max_steps={STEPS}", "training.save_steps=2"]
SMALL = [
    *SHARED,
    "scale=smoke",
    "wandb.mode=disabled",
    "training.learning_rate=0.01",
]
SAMPLED = [*SMALL, "training.completions_steps=1"]
AIRL = ["irl_train.py", "--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train", *SAMPLED]
AIRL += ["model.reward_learning_rate=0.001"]
# Each is trained at tiny sizes from its published config.
CASES: dict[str, list[str]] = {
    "airl": AIRL,
    "airl, pairwise, additive": [*AIRL, "variant=[pairwise,additive]"],
    "airl, wgan": [*AIRL, "variant=wgan"],
    "airl, AIRL form, replay": [*AIRL, "variant=airl_form", "model.replay_buffer_size=64", "model.replay_fraction=0.5"],
    "airl, accumulation, iterations": [
        *AIRL,
        "training.gradient_accumulation_steps=2",
        "training.num_iterations=2",
        "training.beta=0.1",
    ],
    "sft": ["sft_train.py", "--config-path=configs/llama3b", "--config-name=sft_3B_config_train", *SMALL],
    "grpo": [
        "train.py",
        "--config-path=configs/llama3b",
        "--config-name=grpo_3B_config_train",
        *SAMPLED,
        "training.beta=0.1",
    ],
}
UNCOMPARED = ("seconds", "time", "runtime", "per_second", "flos", "num_tokens")


def command(case: str, run: Path, resume: bool) -> list[str]:
    script, *words = CASES[case]
    return [
        sys.executable,
        str(ROOT / script),
        *words,
        f"training.output_dir={run}",
        f"training.resume={str(resume).lower()}",
    ]


def start(case: str, run: Path, resume: bool) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    log = run.with_name(run.name + ".log").open("a")
    return subprocess.Popen(command(case, run, resume), cwd=ROOT, env=environment, stdout=log, stderr=log)


def weights(run: Path) -> dict[str, Any]:
    """All tensors of the last checkpoint, by file and name."""
    checkpoint = newest_checkpoint(run)
    files = sorted(checkpoint.rglob("*.safetensors"))
    return {f"{file.relative_to(checkpoint)}:{key}": value for file in files for key, value in load_file(file).items()}


def rows(run: Path) -> list[dict[str, Any]]:
    found = []
    for name in ("train_log.jsonl", "completions.jsonl"):
        if (run / name).is_file():
            found += [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if not any(word in k for word in UNCOMPARED)} for row in found]


def differences(expected: Path, found: Path) -> list[str]:
    one, other = weights(expected), weights(found)
    if newest_checkpoint(expected).name != newest_checkpoint(found).name:
        return [f"ended at {newest_checkpoint(found).name}"]
    if one.keys() != other.keys():
        return ["other tensors"]
    changed = [name for name, value in one.items() if not value.equal(other[name])]
    return [*changed, *(["rows of the logs"] if rows(expected) != rows(found) else [])]


def tortured(case: str, run: Path, seconds: float, n_kills: int, rng: random.Random) -> int:
    """Runs a case to its end with up to `n_kills` kills; returns how often it was killed."""
    kills, resume = 0, False
    while True:
        process = start(case, run, resume)
        if kills < n_kills:
            try:
                process.wait(timeout=rng.uniform(0.3, 0.95) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                resume = (run / "config.yaml").is_file()
                continue
        if process.wait():
            raise SystemExit(f"{case}: failed, see {run}.log")
        return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/torture"))
    arguments = parser.parse_args()
    out, rng = arguments.out.resolve(), random.Random(arguments.seed)
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    per_case = -(-arguments.kills // len(CASES))
    total, diverged = 0, 0
    for case in CASES:
        name = case.replace(",", "").replace(" ", "_")
        begun = time.perf_counter()
        if start(case, out / name, False).wait():
            raise SystemExit(f"{case}: failed, see {out / name}.log")
        seconds = time.perf_counter() - begun
        kills, rounds = 0, 0
        while kills < per_case:  # a run may end before it is killed often enough
            rounds += 1
            again = out / f"{name}_again{rounds}"
            kills += tortured(case, again, seconds, per_case - kills, rng)
            found = differences(out / name, again)
            diverged += bool(found)
            print(
                f"{case}: {kills} kills, {'the same' if not found else 'DIFFERS: ' + ', '.join(found[:4])}", flush=True
            )
        total += kills
    print(f"{total} kills, {diverged} divergences")
    sys.exit(diverged > 0)


if __name__ == "__main__":
    main()
