#!/bin/sh
# The dispatcher beside a Ray node of its own that runs no worker. It ends with the cluster, and is started again.
set -eu

: "${RAY_ADDRESS:?set it to HOST:PORT of the head}"
ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0
exec hpo dispatch
