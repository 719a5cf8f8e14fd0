#!/usr/bin/env bash
# Reproduces a table of the paper: trains, evaluates and scores its runs for each seed, then makes tables and figures.
#   bash runner_scripts/reproduce.sh TABLE [--only NAME] [--dry-run] [OVERRIDE ...]
# TABLE is main, noper, wgan, granularity, discriminator or medreason; --only qwen3b selects runs by name.
# SEEDS (default "0 1 2") and GPU (default 0) come from the environment: SEEDS=0 GPU=0 and SEEDS=1 GPU=1 can run at the
# same time. Finished commands are skipped and interrupted ones resumed, so it can be started again at any time.
# OVERRIDEs are passed to every job that has the key; scale=smoke rehearses the table on a CPU, under outputs/smoke.
set -euo pipefail
read -ra seeds <<<"${SEEDS:-0 1 2}"
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$scripts/run_gpu_node.sh" "${GPU:-0}" runner_scripts/reproduce.py "$@" --seeds "${seeds[@]}"
