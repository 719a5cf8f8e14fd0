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
trap 'kill $(jobs -p) 2>/dev/null' EXIT # what runs in the background ends with this script
# Starts to sample the policy NAME, on one core.
evaluate() { # NAME ARGUMENT ...
  OMP_NUM_THREADS=1 python evaluate.py "${@:2}" >"$run/evaluate_$1.log" 2>&1 &
}
# Waits for it, and prints the accuracy of one sample and of the best of all.
evaluated() { # NAME PROCESS
  wait "$2" || { cat "$run/evaluate_$1.log" >&2; exit 1; }
  printf '%s\n' "$1"
  grep -E '^pass@(1|8) ' "$run/evaluate_$1.log"
  rm "$run/evaluate_$1.log"
}

say "1/5 warm start, then adversarial IRL: 3 min"
python irl_train.py seed="$seed" training.output_dir="$run" "$@"

say "2/5 baseline: SFT continued on the same experts for the same wall time: 2 min"
python sft_train.py seed="$seed" training.output_dir="$run/sft_continued" model.checkpoint="$run/warm_start" \
  training.max_steps=1000000 training.save_steps=1000000 training.logging_steps=50 training.max_seconds="$(python -c "import json, sys; print(json.load(open(sys.argv[1]))['airl'])" "$run/seconds.json")"

say "3/5 sampling the policies on held-out problems, all at once: 30 s"
evaluate airl run_dir="$run" && airl=$!
evaluate warm_start run_dir="$run" policy_path="$run/warm_start" output_dir="$run/warm_start_samples" && warm_start=$!
evaluate sft_continued run_dir="$run/sft_continued" && sft_continued=$!
evaluated airl $airl
evaluated warm_start $warm_start
evaluated sft_continued $sft_continued

say "4/5 evaluating the reward: reranking, AUROC, first wrong step: 30 s"
python evaluate_irl.py run_dir="$run" model.sft_path="$run/sft_continued" >"$run/tables.txt"

say "5/5 figures and report: 5 s"
python figures/plot_run.py "$run"
python -m reasoning_irl.eval.quickstart_report "$run" $((SECONDS - start))
