#!/usr/bin/env bash
# All runs of a table of the paper: train, evaluate, score, for each seed; then its tables and figures.
#   bash runner_scripts/reproduce.sh TABLE [--only NAME] [--dry-run] [OVERRIDE ...]
# TABLE is main, noper, wgan, granularity, discriminator or medreason; --only qwen3b takes the runs with that name.
# SEEDS (default "0 1 2") and GPU (default 0) come from the environment: SEEDS=0 GPU=0 and SEEDS=1 GPU=1 run beside
# each other. What is done is left out and what was cut off is resumed, so it may be started again at any time.
# OVERRIDEs go to every job that has the key; scale=smoke rehearses the table on a CPU, under outputs/smoke.
set -euo pipefail
read -ra seeds <<<"${SEEDS:-0 1 2}"
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$scripts/run_gpu_node.sh" "${GPU:-0}" runner_scripts/reproduce.py "$@" --seeds "${seeds[@]}"
