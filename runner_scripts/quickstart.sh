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
start=$SECONDS
say() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - start)); }
# One thread each: two programs run at a time, and results depend on the number of threads.
export OMP_NUM_THREADS=1

# From the same warm start: SFT on the same experts, ten passes, after which it loses variety; then the samples of both.
baselines() {
  until [ -d "$run/warm_start" ]; do sleep 1; done # it appears when it is whole
  python sft_train.py seed="$seed" training.output_dir="$run/sft_continued" model.checkpoint="$run/warm_start" \
    training.max_steps=160 training.save_steps=160 training.logging_steps=20
  python evaluate.py run_dir="$run" policy_path="$run/warm_start" output_dir="$run/warm_start_samples"
  python evaluate.py run_dir="$run/sft_continued"
}

log=$(mktemp)
trap 'kill -- -"$baselines" $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT # the baselines end with this script
set -m # a process group of their own, so that all of it can be ended
baselines >"$log" 2>&1 &
baselines=$!
set +m

say "1/4 warm start, then adversarial IRL; beside it the baseline, SFT on the same experts: 3 min"
python irl_train.py seed="$seed" training.output_dir="$run" "$@"

say "2/4 sampling the policies on held-out problems: 30 s"
python evaluate.py run_dir="$run"
wait "$baselines" || { cat "$log" >&2; exit 1; }

say "3/4 evaluating the reward: reranking, AUROC, first wrong step: 30 s"
score() { python evaluate_irl.py run_dir="$run" model.sft_path="$run/sft_continued" "$@"; }
start_samples=$run/warm_start_samples # those of a policy that has not learnt from the reward
score eval.traces="$start_samples/traces.jsonl" output_dir="$start_samples" eval.n_planted=0 >"$start_samples/tables.txt" &
start_scored=$!
score >"$run/tables.txt"
wait "$start_scored"

say "4/4 figures and report: 5 s"
python figures/plot_run.py "$run"
python -m reasoning_irl.eval.quickstart_report "$run" $((SECONDS - start))
