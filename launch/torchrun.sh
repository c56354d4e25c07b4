#!/usr/bin/env bash
# One agent per host by torchrun: give the same command on every host, HOST_NUMBER apart.
#
#   NUM_HOSTS=2 HOST_NUMBER=0 MASTER_ADDR=first-host launch/torchrun.sh pretrain --config configs/base/pretrain.yaml ...
#
# On one host none of the variables is needed. torchrun leaves with its own code (1) when the ranks
# leave with 75 (stopped with a checkpoint); the same command goes on.
set -euo pipefail
: "${NUM_HOSTS:=1}" "${HOST_NUMBER:=0}" "${MASTER_ADDR:=127.0.0.1}" "${MASTER_PORT:=29500}"

if [[ -z "${RANKS_PER_HOST:-}" ]]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1; then
        RANKS_PER_HOST=$(nvidia-smi --list-gpus | wc -l)
    else
        RANKS_PER_HOST=2
    fi
fi
# Each rank sets its number of threads itself; torchrun would set 1 and say so.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec torchrun --nnodes "$NUM_HOSTS" --node-rank "$HOST_NUMBER" --nproc-per-node "$RANKS_PER_HOST" \
    --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" --module magicbert "$@"
