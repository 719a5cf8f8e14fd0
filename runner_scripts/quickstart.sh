#!/usr/bin/env bash
# The full pipeline on the embedded data: learn a reward, compare it with its baselines, plot the results.
#   bash runner_scripts/quickstart.sh [RUN_DIR] [SEED] [OVERRIDE ...]
# An existing run is kept under a new name.
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
say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - start)); }

say "1/5 warm start, then adversarial IRL"
python irl_train.py seed="$seed" training.output_dir="$run" "$@"

say "2/5 baseline: SFT continued on the same experts for the same wall time"
python sft_train.py seed="$seed" training.output_dir="$run/sft_continued" model.checkpoint="$run/warm_start" \
  training.max_steps=1000000 training.save_steps=1000000 training.max_seconds="$(python -c "import json, sys; print(json.load(open(sys.argv[1]))['airl'])" "$run/seconds.json")"

say "3/5 sampling the policies on held-out problems"
python evaluate.py run_dir="$run"
python evaluate.py run_dir="$run" policy_path="$run/warm_start" output_dir="$run/warm_start_samples"
python evaluate.py run_dir="$run/sft_continued"

say "4/5 evaluating the reward: reranking, AUROC, first wrong step"
python evaluate_irl.py run_dir="$run" model.sft_path="$run/sft_continued"

say "5/5 figures and report"
python figures/plot_run.py "$run"
python -m reasoning_irl.eval.quickstart_report "$run" $((SECONDS - start))
