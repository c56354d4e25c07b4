#!/usr/bin/env bash
# Pretrains on the devices of this host: one rank per GPU, or two ranks on a CPU.
#
#   launch/local.sh configs/base/pretrain.yaml [--section.field VALUE ...]
#
# The same command goes on where an earlier start stopped (exit code 75 = stopped with a checkpoint).
set -euo pipefail
config=${1:?usage: launch/local.sh CONFIG [--section.field VALUE ...]}
shift

if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1; then
  ranks=$(nvidia-smi --list-gpus | wc -l)
else
  ranks=2
fi
exec magicbert pretrain --config "$config" --launch.num_ranks "$ranks" "$@"
