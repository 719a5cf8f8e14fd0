#!/usr/bin/env bash
# Runs a Python job on one GPU, on the cores and memory of the NUMA node beside it; the job's exit code is passed on.
#   bash runner_scripts/run_gpu_node.sh GPU SCRIPT [ARGUMENT ...]
# SCRIPT is looked for in the current directory, then in the repository; outputs/ is the current directory's.
# A CUDA_VISIBLE_DEVICES that is set already is kept. What cannot be found out (no GPU, no numactl) costs one line of
# warning and the binding, never the job. SYSFS (default /sys) is where the kernel describes the machine.
set -uo pipefail
[ $# -ge 2 ] || { echo "usage: bash runner_scripts/N_run_gpu_node.sh SCRIPT [ARGUMENT ...], N the GPU" >&2; exit 2; }
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gpu=$1 script=$2
shift 2
warn() { echo "warning: $1" >&2; }

# The published commands export OVERRIDE for one experiment and pass it by hand; the next experiment still has it.
read -ra words <<<"${OVERRIDE:-}"
arguments=()
for argument in "$@"; do # zsh, and quotes, hand $OVERRIDE on in one piece
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
[ "${CONDA_DEFAULT_ENV:-}" != base ] || environment=${VIRTUAL_ENV:-} # conda's base is active wherever nothing else is
[ -n "$environment" ] || [ ! -x "$repository/.venv/bin/python" ] || python=$repository/.venv/bin/python

# CUDA's own order is by speed; nvidia-smi's, which GPU counts in, is by bus.
export CUDA_DEVICE_ORDER=${CUDA_DEVICE_ORDER:-PCI_BUS_ID}
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-$gpu}
device=${CUDA_VISIBLE_DEVICES%%,*} # the first of several

# numactl and its arguments, or nothing; one warning at most.
bind=()
find_binding() {
  local bus node cores sysfs=${SYSFS:-/sys}/bus/pci/devices
  [ -n "$device" ] || return 0 # a job that was told to use no GPU
  command -v nvidia-smi >/dev/null || { warn "no GPU found (no nvidia-smi): the job runs without one"; return; }
  bus=$(nvidia-smi -i "$device" --query-gpu=pci.bus_id --format=csv,noheader 2>/dev/null | head -n 1 | tr 'A-F' 'a-f')
  # nvidia-smi writes the bus domain with eight digits, the kernel with four.
  [[ $bus =~ ^[0-9a-f]{4}([0-9a-f]{4}:[0-9a-f:.]+)$ ]] || { warn "there is no GPU $device here: the job sees none"; return; }
  bus=${BASH_REMATCH[1]}
  command -v numactl >/dev/null || { warn "no numactl: the job is not kept on the cores beside GPU $device"; return; }
  node=$(cat "$sysfs/$bus/numa_node" 2>/dev/null) cores=$(cat "$sysfs/$bus/local_cpulist" 2>/dev/null)
  if [ -z "$cores" ] || [ "${node:--1}" -lt 0 ]; then
    warn "the NUMA node of GPU $device is not known: the job is not kept on the cores beside it"
    return
  fi
  bind=(numactl "--physcpubind=$cores" "--preferred=$node") # memory from elsewhere once the node's is used up
  # A scheduler may have lent us other cores than those.
  "${bind[@]}" true 2>/dev/null || { bind=(); warn "cores $cores beside GPU $device cannot be used: the job is not bound"; }
}
find_binding

exec ${bind[@]+"${bind[@]}"} "$python" "$script" "$@"
