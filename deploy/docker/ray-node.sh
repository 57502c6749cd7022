#!/bin/sh
# One node of the Ray cluster, in the foreground. RAY_HEAD=1 makes it the head, which runs no worker; else RAY_ADDRESS
# names the head. The token is in the file RAY_AUTH_TOKEN_PATH.
set -eu

if [ "${RAY_HEAD:-0}" = 1 ]; then
    exec ray start --block --head --port=6379 --num-cpus=0 --num-gpus=0 --include-dashboard=false \
        --system-config='{"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 5}'
fi
: "${RAY_ADDRESS:?set it to HOST:PORT of the head}"
if [ -n "${RAY_SLOTS:-}" ]; then # a node without GPUs; HPO_RAY_RESOURCE of the dispatcher is "slot"
    exec ray start --block --address="$RAY_ADDRESS" --num-gpus=0 --resources="{\"slot\": $RAY_SLOTS}"
fi
exec ray start --block --address="$RAY_ADDRESS"
