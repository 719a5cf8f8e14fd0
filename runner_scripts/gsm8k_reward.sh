#!/usr/bin/env bash
# Which form of the reward learns what is wrong in real solutions of GSM8K; see benchmarks/gsm8k_reward.py.
#   QUESTIONS=test.jsonl SAMPLES=samples.jsonl [MODEL=FOLDER] [N=819] bash runner_scripts/gsm8k_reward.sh
# QUESTIONS is a file of github.com/openai/grade-school-math; SAMPLES has solutions of real models to its questions, each
# line with question, completion and correct. Called again, it goes on where it was interrupted.
set -euo pipefail
: "${QUESTIONS:?set QUESTIONS to a file of GSM8K with its solutions}" "${SAMPLES:?set SAMPLES to a traces file}"
model=${MODEL:-models/smollm2-135m}
folder=outputs/gsm8k_reward/$(basename "$model")
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
[ -d "$model" ] || { echo "there is no model folder $model: run \`make smollm2\`, or set MODEL" >&2; exit 2; }

benchmark=(python benchmarks/gsm8k_reward.py --questions "$QUESTIONS" --samples "$SAMPLES" --model "$model"
  --folder "$folder" ${N:+--n "$N"})
"${benchmark[@]}" --states-only
# The experts of each fold, imitated: one pass over them, four at a time. A folder's name says which experts.
imitated=()
for experts in "$folder"/experts_*.jsonl; do
  run=$folder/sft_$(sha256sum <"$experts" | cut -c 1-12) steps=$(($(wc -l <"$experts") / 4))
  imitated+=("$run/checkpoint-$steps")
  [ ! -d "${imitated[-1]}" ] || continue
  rm -rf "$run"
  python sft_train.py --config-path=configs/smollm2 --config-name=sft_135M_config_train model.policy_name="$model" \
    dataset.name=jsonl dataset.path="$experts" dataset.system_prompt="''" dataset.n_heldout=2 dataset.n_train=null \
    training.max_steps="$steps" training.save_steps="$steps" training.max_completion_length=300 \
    training.learning_rate=2.0e-4 training.lr_scheduler_type=linear training.output_dir="$run"
done
"${benchmark[@]}" --sft "${imitated[@]}"
