#!/usr/bin/env bash
# Several hosts by the deepspeed launcher.
#
# By ssh and pdsh, from the first host of the hostfile alone:
#   launch/deepspeed.sh launch/hostfile.example pretrain --config configs/base/pretrain.yaml ...
# Without ssh, the same command on every host, HOST_NUMBER apart (the line in the hostfile, from 0):
#   HOST_NUMBER=0 MASTER_ADDR=first-host launch/deepspeed.sh launch/hostfile.example pretrain ...
#
# The launcher leaves with its own code (1) where the ranks leave with 75 (stopped with a
# checkpoint); the same command goes on. Variables that ranks need, one NAME=VALUE per line, go into
# .deepspeed_env beside the command: ssh passes nothing else on.
set -euo pipefail
hostfile=${1:?usage: launch/deepspeed.sh HOSTFILE VERB --config CONFIG [--section.field VALUE ...]}
shift
: "${MASTER_PORT:=29500}"

options=(--hostfile "$hostfile" --master_port "$MASTER_PORT")
if [[ -n "${HOST_NUMBER:-}" ]]; then
    : "${MASTER_ADDR:?the address of the first host, which the others reach}"
    options+=(--no_ssh --node_rank "$HOST_NUMBER")
fi
if [[ -n "${MASTER_ADDR:-}" ]]; then
    options+=(--master_addr "$MASTER_ADDR")
fi
exec deepspeed "${options[@]}" --module magicbert "$@"
