#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_gpu_node.sh" 2 "$@" # runs the job on GPU 2
