#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_gpu_node.sh" 3 "$@" # runs the job on GPU 3
