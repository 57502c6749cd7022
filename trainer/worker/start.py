"""The start of a worker once its streams are guarded: its device, its ranks, its warm base to be."""

import argparse
from collections.abc import Callable
from queue import Queue
from socket import socket

from pydantic import BaseModel

from trainer.accounting.devices import prepare_device
from trainer.data.token_cache import TokenCache
from trainer.distributed.ranks import Ranks, start_ranks
from trainer.distributed.worker_group import WorkerGroup
from trainer.spec import WorkerCommand
from trainer.worker import loop as turns
from trainer.worker.resident_trials import Residents


def serve(
    options: argparse.Namespace,
    commands: Queue[WorkerCommand],
    send: Callable[[BaseModel], None],
    group: WorkerGroup | None,
    listener: socket | None,
) -> None:
    """Serve slices for ever; `options` are the worker's. `group` is given to rank 0 that started the others.

    Rank 0 of several waits for the others at `listener`.
    """
    if group is not None:
        group.watch(send)
    device = prepare_device(options.threads)
    ranks = Ranks()
    if options.ranks > 1:
        ranks = start_ranks(options.rank_timeout_seconds, listener)
    token_cache = TokenCache(options.token_cache, options.tokenize_processes)
    residents = Residents(device, options.resident, token_cache, ranks=ranks, repeats_steps=True)
    turns.serve(options.snapshots, residents, commands, send, group)
