"""Runs the commands of the documents, in their order, on small data and models: `make docs-check`, about ten minutes.

    python -m tests.docs_check [PATTERN]

They run as they are written, in a temporary folder that has what they name (MODEL, train.jsonl, DIR ...), with further
words that make jobs short. Those that take long, or need a GPU or a hub, are listed with what runs them instead.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from transformers import set_seed

from reasoning_irl.config.schema import Granularity, RewardHead
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from reasoning_irl.utils.log import quiet_libraries
from tests.helpers.commands import REPOSITORY
from tests.helpers.configs import compose_raw
from tests.helpers.models import save_tiny_model
from tests.helpers.tokenizers import byte_level
from tests.helpers.traces import write_rows

README, HISTORY = REPOSITORY / "README.md", REPOSITORY / "docs" / "log.md"
DOCUMENTS = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MAIN_CONFIGS = {"irl_train.py": "config_irl_train", "sft_train.py": "config_sft_train", "train.py": "config_train"}
# What is not run here, by what runs it.
ELSEWHERE = {
    r"^make (test|test-long|lint|docs-check)": "the checks of every change",
    r"^make quickstart": "its own, five minutes; its steps are in tests/test_commands.py",
    r"^make (ablations|bench|smoke|torture|gsm8k-reward)": "its own, ten minutes to hours; parts are tested",
    r"^make (smollm2|test-unsloth)": "its own: it installs packages",
    r"^(pip|conda|git|pre-commit) ": "hand: it needs the network",
    r"configs/smollm2": "hand: it needs `make smollm2` and GSM8K",
    r"gpu_check\.sh": "tests/runner_scripts/test_gpu_check.py",
    r"runner_scripts/reproduce\.sh \w+$": "tests/runner_scripts/test_reproduce.py",
    r"training_memory\.py|benchmarks/(memory|log_ratio|gsm8k_reward)\.py": "hand, for minutes; parts are tested",
    r"--push-to-hub": "tests/test_export.py",
    r"^reasoning-irl": "tests/test_packaging.py",
    r"SCRIPT\.py": "tests/config",
    r"> docs/": "the tests that the page is current",
    r"^(accelerate launch|torchrun) ": "tests/test_processes.py",
}
SHORT = "training.max_steps=2 training.save_steps=2 training.per_device_train_batch_size=8 training.num_generations=4"
FEW = "sampling.n_samples=2 sampling.batch_size=16 eval.n_problems=4 eval.n_validation=3 eval.ks=[1]"
OWN = "training.max_completion_length=40 guard.enabled=false model.load_in_4bit=false"
# Further words for the commands that match; the first pattern counts.
WORDS = (
    (r"own_irl_train", f"{SHORT} {OWN} model.reward_batch_size=2 model.reward_policy_batch_size=4"),
    (r"offline_irl_train", "training.max_steps=2 training.eval_steps=2 training.save_steps=2"),
    (r"^python evaluate\.py .*base/eval", f"{FEW} eval.bootstrap_draws=20"),
    (r"^python evaluate_irl\.py", "eval.bootstrap_draws=20 eval.batch_size=8"),
    (r"(irl_train|sft_train|train|evaluate|evaluate_irl)\.py", "scale=smoke"),
)
TRACES = [
    {"id": str(n), "question": f"How many are {n} and 1?", "completion": f"{n} + 1 = {n + 1 + k}", "correct": not k}
    for n in range(8)
    for k in range(2)
]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def commands() -> list[str]:
    """The commands in the documents' bash blocks and, if they start with one of our programs, in their text.

    Those of the history are of its entries' commits, and are left out.
    """
    found = []
    for document in DOCUMENTS:
        if document == HISTORY:
            continue
        for block in blocks(document, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.partition(" #")[0] for line in lines if line.partition("#")[0].strip()]
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
        found += re.findall(r"`((?:python|make|bash|reasoning-irl|[A-Z_]+=\S+ python) [^`]+)`", text)
    return list(dict.fromkeys(re.sub(r"\s+", " ", command).strip() for command in found))


def shortened(command: str, number: int) -> str:
    """The command with the words that make it short, with the first value of each swept key and a folder of its own."""
    if ".py" in command and " -m " in command:
        command = re.sub(r"(?<==)(\w+),\S+", r"\1", command.replace(" -m ", " "))
    command = re.sub(r"\bRUN RUN \.\.\.", "outputs/quickstart", command)
    command = re.sub(r"outputs/quickstart-seed\d", "outputs/quickstart", command)
    command = command.replace(" RUN ", " outputs/quickstart ")
    command = re.sub(r"(--out|export outputs/quickstart) DIR\b", rf"\1 written{number}", command)
    more = next((words for pattern, words in WORDS if re.search(pattern, command)), "")
    if "scale=smoke" in more and re.match(r"python (irl_train|sft_train|train)\.py$", command):
        config = MAIN_CONFIGS[command.split()[1]]
        more += f" training.output_dir={compose_raw(config).training.output_dir}"  # where later commands look for it
    return f"{command} {more}".strip()


def furnish(folder: Path) -> None:
    """Puts into the folder what the commands name: the repository, data, a model, and reward models."""
    for path in REPOSITORY.iterdir():
        if path.name not in (".git", ".venv", "outputs"):
            (folder / path.name).symlink_to(path)
    tokenizer = byte_level(300)
    save_tiny_model(folder / "MODEL", tokenizer, tie_word_embeddings=True, max_position_embeddings=2048)
    for name in ("DIR", "A", "B"):
        set_seed(len(name))
        model = build_reward_model("MODEL", RewardSpec(RewardHead.plain, Granularity.dense, 1), tokenizer)
        model.save(folder / name)
        tokenizer.save_pretrained(folder / name)
    for name in ("FILE", "labelled.jsonl", "samples.jsonl"):
        write_rows(folder / name, TRACES)
    for name, numbers in (("train.jsonl", range(60)), ("test.jsonl", range(60, 90))):
        write_rows(folder / name, [expert(n) for n in numbers])


def expert(n: int) -> dict[str, str]:
    return {"question": f"How many are {n} and 1?", "reasoning": f"{n} + 1 = {n + 1}", "answer": str(n + 1)}


def main(pattern: str = "") -> int:
    quiet_libraries()
    n_failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with chdir(folder):
            furnish(folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        for number, command in enumerate(commands()):
            if not re.search(pattern, command):
                continue
            elsewhere = next((what for words, what in ELSEWHERE.items() if re.search(words, command)), None)
            if elsewhere:
                print(f"-           {command}\n            run by {elsewhere}", flush=True)
                continue
            short, start = shortened(command, number), time.perf_counter()
            done = subprocess.run(
                ["bash", "-c", short],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            verdict = "ok" if done.returncode == 0 else f"FAILED {done.returncode}"
            print(f"{verdict:<8}{time.perf_counter() - start:3.0f} s {command}", flush=True)
            if done.returncode:
                n_failed += 1
                print(f"  ran: {short}\n{done.stdout[-1500:]}{done.stderr[-1500:]}", flush=True)
    print(f"{n_failed} commands failed")
    return min(n_failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
