#!/usr/bin/env bash
# Which form of the reward learns what is wrong in real solutions of GSM8K; see benchmarks/gsm8k_reward.py.
#   QUESTIONS=test.jsonl SAMPLES=samples.jsonl [MODEL=FOLDER] [N_LEARN=184] bash runner_scripts/gsm8k_reward.sh [ARGUMENT ...]
# QUESTIONS is a file of github.com/openai/grade-school-math; SAMPLES has solutions of real models to its questions, each
# line with question, completion and correct. Called again, it goes on where it was interrupted.
set -euo pipefail
: "${QUESTIONS:?set QUESTIONS to a file of GSM8K with its solutions}" "${SAMPLES:?set SAMPLES to a traces file}"
model=${MODEL:-models/smollm2-135m} n=${N_LEARN:-184}
folder=outputs/gsm8k_reward/$(basename "$model")
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
[ -d "$model" ] || { echo "there is no model folder $model: run \`make smollm2\`, or set MODEL" >&2; exit 2; }

benchmark=(python benchmarks/gsm8k_reward.py --questions "$QUESTIONS" --samples "$SAMPLES" --model "$model"
  --folder "$folder" --n-learn "$n" "$@")
"${benchmark[@]}"
# The same experts, imitated: two passes over them, four at a time.
steps=$((n / 2))
if [ ! -d "$folder/sft/checkpoint-$steps" ]; then
  rm -rf "$folder/sft"
  python sft_train.py --config-path=configs/smollm2 --config-name=sft_135M_config_train model.policy_name="$model" \
    dataset.name=jsonl dataset.path="$folder/experts.jsonl" dataset.system_prompt="''" dataset.n_heldout=2 \
    dataset.n_train=null training.max_steps="$steps" training.save_steps="$steps" training.max_completion_length=300 \
    training.learning_rate=2.0e-4 training.lr_scheduler_type=linear training.output_dir="$folder/sft"
fi
"${benchmark[@]}" --sft "$folder/sft/checkpoint-$steps"
