#!/usr/bin/env bash
# Runs a Python job on one GPU, with the cores and memory of its NUMA node; returns the job's exit code.
#   bash runner_scripts/run_gpu_node.sh GPU SCRIPT [ARGUMENT ...]
# SCRIPT is looked up in the current directory, then in the repository; outputs/ is in the current directory.
# An existing CUDA_VISIBLE_DEVICES is kept. If the GPU or numactl is missing, the job runs unbound after a one-line
# warning. SYSFS (default /sys) is where the kernel describes the machine.
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: bash runner_scripts/N_run_gpu_node.sh SCRIPT [ARGUMENT ...], N the GPU" >&2; exit 2; }
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gpu=$1 script=$2
shift 2
warn() { echo "warning: $1" >&2; }

# The published commands export OVERRIDE for one experiment and pass it by hand; it is still set for the next one.
read -ra words <<<"${OVERRIDE:-}"
arguments=()
for argument in "$@"; do # zsh, and quotes, pass $OVERRIDE as one word
  if [ ${#words[@]} -gt 1 ] && [ "$argument" = "$OVERRIDE" ]; then arguments+=("${words[@]}"); else arguments+=("$argument"); fi
done
set -- ${arguments[@]+"${arguments[@]}"}
for word in ${words[@]+"${words[@]}"}; do
  [[ " $* " == *" $word "* ]] && continue
  warn "OVERRIDE is exported and NOT applied: add \$OVERRIDE to the command, or unset OVERRIDE (it is: $OVERRIDE)"
  break
done

[ -e "$script" ] || [ ! -e "$repository/$script" ] || script=$repository/$script

python=python
command -v python >/dev/null || python=python3
environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
[ "${CONDA_DEFAULT_ENV:-}" != base ] || environment=${VIRTUAL_ENV:-} # conda's base is active by default
[ -n "$environment" ] || [ ! -x "$repository/.venv/bin/python" ] || python=$repository/.venv/bin/python

# GPU is nvidia-smi's index, which is ordered by bus; CUDA's default order is by speed.
export CUDA_DEVICE_ORDER=${CUDA_DEVICE_ORDER:-PCI_BUS_ID}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-$gpu}
device=${CUDA_VISIBLE_DEVICES%%,*} # the first of several

# numactl and its arguments, or nothing; at most one warning.
bind=()
find_binding() {
  local bus node cores sysfs=${SYSFS:-/sys}/bus/pci/devices
  [ -n "$device" ] || return 0 # the job is meant to use no GPU
  command -v nvidia-smi >/dev/null || { warn "no GPU found (no nvidia-smi): the job runs without one"; return; }
  bus=$(nvidia-smi -i "$device" --query-gpu=pci.bus_id --format=csv,noheader 2>/dev/null | head -n 1 | tr 'A-F' 'a-f')
  # nvidia-smi writes the bus domain with eight digits, the kernel with four.
  [[ $bus =~ ^[0-9a-f]{4}([0-9a-f]{4}:[0-9a-f:.]+)$ ]] || { warn "there is no GPU $device here: the job runs without one"; return; }
  bus=${BASH_REMATCH[1]}
  command -v numactl >/dev/null || { warn "no numactl: the job is not bound to the cores near GPU $device"; return; }
  node=$(cat "$sysfs/$bus/numa_node" 2>/dev/null) cores=$(cat "$sysfs/$bus/local_cpulist" 2>/dev/null)
  if [ -z "$cores" ] || [ "${node:--1}" -lt 0 ]; then
    warn "the NUMA node of GPU $device is not known: the job is not bound to its cores"
    return
  fi
  bind=(numactl "--physcpubind=$cores" "--preferred=$node") # other nodes' memory once this one's is used up
  # A scheduler may not allow these cores.
  "${bind[@]}" true 2>/dev/null || { bind=(); warn "cores $cores near GPU $device are not usable: the job is not bound"; }
}
find_binding

exec ${bind[@]+"${bind[@]}"} "$python" "$script" "$@"
