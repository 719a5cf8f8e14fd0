"""The Python part of gpu_check.sh: compares packages with the pins, runs one phase, or runs all phases into one JSON.

A phase is one of the project's scripts in its own process, so that its peak memory is its own; rates exclude the first
step, which compiles and warms up.
"""

import argparse
import json
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
STEPS = 20
PROBE = """import json, torch
gpu = torch.cuda.is_available()
memory = torch.cuda.get_device_properties(0).total_memory if gpu else None
print(json.dumps([torch.cuda.get_device_name(0) if gpu else None, memory]))"""
PHASES = {"sft": 100, "airl": 170, "grpo": 140, "evaluate": 120}  # the most seconds that each may take
CONFIGS = {
    "sft": ("sft_train.py", "sft_3B_config_train"),
    "airl": ("irl_train.py", "3B_1B_config_irl_train"),
    "grpo": ("train.py", "grpo_3B_config_train"),
    "evaluate": ("evaluate.py", "3B_1B_config_eval"),
}


def misfits(wheels: Path) -> list[str]:
    """Pins that this environment lacks or has in another version; with Unsloth's pins if the folder has its wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = runpy.run_path(str(ROOT / "src/reasoning_irl/__init__.py"))["__version__"]
    pins = [*project["dependencies"], f"{project['name']}=={own}"]
    if any(wheels.glob("unsloth-*.whl")):
        lines = (ROOT / "requirements-unsloth.txt").read_text().splitlines()
        pins += [line for line in lines if line and not line.startswith("#")]
    return [pin for pin in pins if installed(pin.partition("==")[0]) != pin.partition("==")[2]]


def installed(package: str) -> str | None:
    """A package's version without its build tag, such as +cpu in 2.13.0+cpu."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def phase_arguments(phase: str, model: Path, data: Path | None, folder: Path, how: Sequence[str]) -> list[str]:
    """Script and overrides of a phase: a short llama3b experiment on the given model; `how` comes last."""
    script, name = CONFIGS[phase]
    words = [script, "--config-path=configs/llama3b", f"--config-name={name}", "wandb.mode=disabled"]
    if phase == "evaluate":
        return [*words, f"run_dir={folder / 'airl'}", *how]
    words.append(f"training.output_dir={folder / phase}")
    if "scale=smoke" in how:
        return [*words, *how]
    words += [f"model.policy_name={model}", f"training.max_steps={STEPS}", f"training.save_steps={STEPS}"]
    words += ["training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=1"]
    words += ["training.max_prompt_length=400", "training.max_completion_length=200", "dataset.n_train=256"]
    words += ["dataset.n_heldout=16"]
    if data:
        words += ["dataset.name=gsm8k", f"dataset.path={data / 'train.jsonl'}"]
        words += [f"dataset.test_path={data / 'test.jsonl'}"]
    else:
        words += ["dataset.name=arithmetic"]
    if phase != "sft":
        words += ["training.num_generations=8"]
    if phase == "airl":
        words += [f"model.reward_name={model}", "guard.enabled=false"]
    return [*words, *how]


def run_phase(report: Path, arguments: Sequence[str]) -> None:
    """Runs a script in this process and writes its time and memory, even if it fails or is ended by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    sys.argv = [str(ROOT / arguments[0]), *arguments[1:]]
    sys.path[0] = str(ROOT)
    start = time.perf_counter()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        import torch  # only after the script: Unsloth must be imported first

        gpu = torch.cuda.is_available()
        taken = {
            "seconds": round(time.perf_counter() - start, 1),
            "peak_gpu_memory_allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 3) if gpu else None,
            "peak_gpu_memory_reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3) if gpu else None,
            "peak_host_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 3),
        }
        report.write_text(json.dumps(taken))


def rates(run_dir: Path) -> dict[str, Any]:
    """Steps, and prompt and completion tokens per second after the first step, from a training run's log."""
    path = run_dir / "train_log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    steps = [row for row in rows if "num_tokens" in row]
    if len(steps) < 2:
        return {"steps": len(steps), "tokens_per_second": None}
    first, last = steps[0], steps[-1]
    seconds = last["seconds"] - first["seconds"]
    return {
        "steps": last["step"],
        "seconds_per_step": round(seconds / (last["step"] - first["step"]), 3),
        "tokens_per_second": round((last["num_tokens"] - first["num_tokens"]) / seconds, 1),
    }


def choose_backend(is_rehearsal: bool) -> tuple[str, list[str], list[str]]:
    """The backend, its overrides, and notes on what is not available."""
    if is_rehearsal:
        return "transformers", ["scale=smoke"], ["rehearsal at smoke scale: the figures say nothing about a GPU"]
    probe = subprocess.run([sys.executable, "-c", "import unsloth"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return "unsloth", [], []
    why = (probe.stderr.strip().splitlines() or ["no message"])[-1]
    notes, how = [f"unsloth cannot be imported, so backend=transformers: {why}"], ["model.backend=transformers"]
    if installed("bitsandbytes") is None:
        notes.append("no bitsandbytes: weights in bfloat16, not in 4 bits, and a 32-bit optimiser")
        how += ["model.load_in_4bit=false", "training.optim=adamw_torch"]
    return "transformers", how, notes


def check(model: Path, data: Path | None, out: Path, is_rehearsal: bool, seconds: int) -> int:
    """Runs all phases within `seconds`, writes `out` after each, and returns the exit code."""
    end = time.monotonic() + seconds
    device, memory = json.loads(subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=True).stdout)
    if device is None and not is_rehearsal:
        print("error: no GPU found: add --rehearse to rehearse on a CPU", file=sys.stderr)
        return 2
    backend, how, notes = choose_backend(is_rehearsal)
    packages = ("torch", "transformers", "trl", "peft", "unsloth", "bitsandbytes")
    result: dict[str, Any] = {
        "device": device or "CPU",
        "gpu_memory_gib": memory and round(memory / GIB, 1),
        "backend": backend,
        "is_rehearsal": is_rehearsal,
        "notes": notes,
        "model": "embedded" if is_rehearsal else model.name,
        "dataset": "gsm8k" if data and not is_rehearsal else "arithmetic",
        "versions": {package: installed(package) for package in packages},
        "phases": {},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_check_", dir=out.parent) as folder:
        for phase, most in PHASES.items():
            allowed = min(most, int(end - time.monotonic()))
            overrides = evaluation_overrides(is_rehearsal, how) if phase == "evaluate" else how
            arguments = phase_arguments(phase, model, data, Path(folder), overrides)
            result["phases"][phase] = measured(phase, arguments, Path(folder), log, allowed)
            print(f"{phase:<9} {json.dumps(result['phases'][phase])}", flush=True)
            out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {out}; the output of the phases is in {log}")
    return 0 if all(phase["ok"] for phase in result["phases"].values()) else 1


def evaluation_overrides(is_rehearsal: bool, how: Sequence[str]) -> list[str]:
    """16 samples for each of 16 problems, with weights loaded as in training."""
    sizes = ["sampling.n_samples=16", "eval.ks=[1,16]"]
    if is_rehearsal:
        return [*how, *sizes]
    sizes += ["sampling.batch_size=256", "sampling.max_prompt_length=400", "sampling.max_completion_length=200"]
    in_4bit = "false" if "model.load_in_4bit=false" in how else "true"
    return [*sizes, f"sampling.load_in_4bit={in_4bit}", "eval.n_problems=16", "eval.n_validation=2"]


def measured(phase: str, arguments: Sequence[str], folder: Path, log: Path, allowed: int) -> dict[str, Any]:
    """Runs one phase in its own process under `timeout` and returns its measurements."""
    if allowed < 5:
        return {"ok": False, "error": "no time was left"}
    report = folder / f"{phase}.json"
    command = ["timeout", "-k", "10", str(allowed), sys.executable, __file__, "phase", str(report), *arguments]
    with log.open("a") as file:
        file.write(f"== {phase}: {' '.join(arguments)}\n")
        file.flush()
        start = file.tell()
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    taken: dict[str, Any] = {"ok": code == 0, **(json.loads(report.read_text()) if report.is_file() else {})}
    if code:
        said = log.read_text(errors="replace")[start:].strip().splitlines()
        taken["error"] = f"cut off after {allowed} s" if code in (124, 137) else (said or ["no message"])[-1]
    if phase != "evaluate":
        return taken | rates(folder / phase)
    metrics = folder / "airl" / "metrics.json"
    if metrics.is_file():
        taken["tokens_per_second"] = json.loads(metrics.read_text())["tokens_per_second"]
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_check")
    jobs = parser.add_subparsers(dest="job", required=True)
    fit = jobs.add_parser("misfits")
    fit.add_argument("wheels", type=Path)
    phase = jobs.add_parser("phase")
    phase.add_argument("report", type=Path)
    phase.add_argument("arguments", nargs=argparse.REMAINDER)
    all_phases = jobs.add_parser("check")
    all_phases.add_argument("model", type=Path)
    all_phases.add_argument("out", type=Path)
    all_phases.add_argument("--data", type=Path)
    all_phases.add_argument("--seconds", type=int, required=True)
    all_phases.add_argument("--rehearse", action="store_true")
    chosen = parser.parse_args()
    if chosen.job == "misfits":
        missing = misfits(chosen.wheels)
        print(" ".join(missing))
        return 1 if missing else 0
    if chosen.job == "phase":
        run_phase(chosen.report, chosen.arguments)
        return 0
    return check(chosen.model.resolve(), chosen.data, chosen.out, chosen.rehearse, chosen.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
