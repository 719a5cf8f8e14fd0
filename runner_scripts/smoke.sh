#!/usr/bin/env bash
# Rehearses the published commands on a CPU with scale=smoke (tiny model, two steps), and evaluate_irl.py after AIRL.
#   bash runner_scripts/smoke.sh [PATTERN]     only runs with a line matching PATTERN (grep -E), such as wgan or qwen7b
# Writes to outputs/smoke, which is only for rehearsals and is emptied first; logs are in outputs/smoke/logs.
# Continues after a failure; the exit code is 0 if every command succeeded.
set -uo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Whole blocks that match the pattern: an evaluation needs its training.
blocks=$(grep -v '^#' "$scripts/published_commands.txt" |
  awk -v RS= -v ORS='\n' -v pattern="${1:-.}" '$0 ~ pattern') || true
[ -n "$blocks" ] || { echo "error: no published command matches: $1" >&2; exit 2; }
echo "emptying outputs/smoke (rehearsals only)"
rm -rf outputs/smoke
mkdir -p outputs/smoke/logs
n=0 failed=()

rehearse() { # SCRIPT FOLDER CONFIG [OVERRIDE ...]
  local script=$1 folder=$2 config=$3 start=$SECONDS result=ok log
  shift 3
  n=$((n + 1))
  log=$(printf 'outputs/smoke/logs/%02d.log' $n)
  OVERRIDE="$*" bash "$scripts/0_run_gpu_node.sh" "$script" "--config-path=configs/$folder" "--config-name=$config" \
    "$@" scale=smoke >"$log" 2>&1 </dev/null || { result=FAILED; failed+=("$log"); }
  printf '%-6s %4d s  %s\n' $result $((SECONDS - start)) "$script $folder/$config${*:+ $*}"
  [ $result = ok ] || printf '       %s: %s\n' "$log" "$(tail -n 1 "$log")"
}

while read -ra words; do
  rehearse "${words[@]}"
  if [[ ${words[0]} = evaluate.py && ${words[2]} != sft_* && ${words[2]} != grpo_* ]]; then
    rehearse evaluate_irl.py "${words[1]}" "${words[2]/_config_/_config_irl_}" "${words[@]:3}"
  fi
done <<<"$blocks"

echo "$((n - ${#failed[@]})) of $n commands ok, $SECONDS s"
[ ${#failed[@]} = 0 ] || { printf 'failed: %s\n' "${failed[@]}"; exit 1; }
