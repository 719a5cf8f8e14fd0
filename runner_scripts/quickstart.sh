#!/usr/bin/env bash
# The full pipeline on the embedded data: learn a reward, compare it with its baselines, plot the results.
#   bash runner_scripts/quickstart.sh [RUN_DIR] [SEED] [OVERRIDE ...]
# An existing run is kept under a new name. Times are of two CPU cores.
set -euo pipefail
run=${1:-outputs/quickstart} seed=${2:-0}
shift $(($# < 2 ? $# : 2))
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

if [ -e "$run" ]; then
  n=1
  while [ -e "$run.$n" ]; do n=$((n + 1)); done
  mv "$run" "$run.$n"
  echo "kept the earlier run as $run.$n"
fi
began=$SECONDS
say() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - began)); }

say "1/4 warm start, then adversarial IRL: 3 min"
python irl_train.py seed="$seed" training.output_dir="$run" "$@"

# From here on, two programs run at a time.
export OMP_NUM_THREADS=1
log=$(mktemp) baselines=
# What runs in the background ends with this script.
trap 'kill -- ${baselines:+-"$baselines"} $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT
# From the same warm start, on the same experts: ten passes, chosen by pass@1 (docs/log.md). Then its samples.
imitate() {
  python sft_train.py seed="$seed" training.output_dir="$run/sft_continued" model.checkpoint="$run/warm_start" \
    training.max_steps=160 training.save_steps=160 training.logging_steps=20
  python evaluate.py run_dir="$run/sft_continued"
}

say "2/4 sampling the policies on held-out problems; beside it the baseline, SFT on the same experts: 1 min"
set -m # a process group of its own, so that all of it can be ended
imitate >"$log" 2>&1 &
baselines=$!
set +m
python evaluate.py run_dir="$run"
python evaluate.py run_dir="$run" policy_path="$run/warm_start" output_dir="$run/warm_start_samples"
wait "$baselines" || { cat "$log" >&2; exit 1; }
baselines=

say "3/4 evaluating the reward: reranking, AUROC, first wrong step: 1 min"
scored=(python evaluate_irl.py run_dir="$run" model.sft_path="$run/sft_continued")
start=$run/warm_start_samples # those of a policy that has not learnt from the reward
"${scored[@]}" eval.traces="$start/traces.jsonl" output_dir="$start" eval.n_planted=0 >"$start/tables.txt" &
of_start=$!
"${scored[@]}" >"$run/tables.txt"
wait "$of_start"

say "4/4 figures and report: 5 s"
python figures/plot_run.py "$run"
python -m reasoning_irl.eval.quickstart_report "$run" $((SECONDS - began))
