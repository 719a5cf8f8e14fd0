#!/usr/bin/env bash
# One command for a machine with a GPU and no network: 20 steps each of SFT, AIRL and GRPO (Unsloth, 4-bit, LoRA) and an
# evaluation with 16 samples. Writes the peak memory and tokens per second of each to one JSON file, within 9 minutes.
#   bash runner_scripts/gpu_check.sh WHEELS_DIR MODEL_DIR [OUT] [--rehearse]
# WHEELS_DIR: wheels for this machine's Python, as downloaded by `pip download -d WHEELS_DIR hatchling .` and `pip
#   download --no-deps -d WHEELS_DIR -r requirements-unsloth.txt`, plus triton and xformers if torch lacks them. They
#   are installed into outputs/gpu_check_venv, on top of the machine's packages, unless those already match the pins.
# MODEL_DIR: the folder of an instruction-tuned model. OUT: default outputs/gpu_check.json.
# GSM8K=DIR in the environment (with train.jsonl and test.jsonl): the data; without it, the embedded problems are used.
# --rehearse runs the same phases at scale=smoke with the installed packages, also on a CPU. PYTHON: default python3.
set -euo pipefail
limit=535 # seconds; the check must finish within 540
rehearse=() words=()
for word in "$@"; do
  if [ "$word" = --rehearse ]; then rehearse=(--rehearse); else words+=("$word"); fi
done
if [ ${#words[@]} -lt 2 ] || [ ${#words[@]} -gt 3 ]; then
  echo "usage: bash runner_scripts/gpu_check.sh WHEELS_DIR MODEL_DIR [OUT] [--rehearse]" >&2
  exit 2
fi
wheels=${words[0]} model=${words[1]} out=${words[2]:-outputs/gpu_check.json}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
check=$repository/runner_scripts/gpu_check.py
python=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false WANDB_MODE=disabled PIP_DISABLE_PIP_VERSION_CHECK=1

if [ ${#rehearse[@]} = 0 ]; then
  for folder in "$wheels" "$model" ${GSM8K:+"$GSM8K"}; do
    [ -d "$folder" ] || { echo "error: there is no folder $folder" >&2; exit 2; }
  done
  if ! missing=$("$python" "$check" misfits "$wheels"); then
    echo "packages that differ from the pins: $missing; installing $wheels into outputs/gpu_check_venv"
    # Without dependencies: the machine's own torch may differ from the pinned one.
    "$python" -m venv --system-site-packages --clear outputs/gpu_check_venv
    python=outputs/gpu_check_venv/bin/python
    timeout 150 "$python" -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
    timeout 60 "$python" -m pip install --quiet --no-index --find-links "$wheels" --no-deps --no-build-isolation \
      --editable "$repository"
  fi
fi
exec "$python" "$check" check "$model" "$out" --seconds $((limit - SECONDS)) ${rehearse[@]+"${rehearse[@]}"} \
  ${GSM8K:+--data "$GSM8K"}
