"""A worker process: slices in on stdin, results out on stdout, one JSON object a line.

`python -m trainer.worker --snapshots DIR --threads N [--resident K] [--ranks R]`

With several ranks this process is rank 0 of a worker group: it starts the others, which hear from it alone. With
`--rank` and `--leader` it is one rank of a group that somebody else starts.
"""

import argparse
import logging
import os
import queue
import signal
import socket
import sys
import threading
from importlib import import_module

from pydantic import BaseModel, ValidationError

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.common.logs import configure_logs, format_of
from trainer.data.token_options import add_token_options
from trainer.distributed.worker_group import WorkerGroup, joined_environment
from trainer.spec import WorkerCommand, worker_command

_log = logging.getLogger("trainer.worker")


class Channel:
    """The original stdout, which nobody else can write to any more."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.set_inheritable(self._descriptor, False)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: BaseModel) -> None:
        """Write one line; the process ends if nobody reads any more."""
        line = message.model_dump_json().encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except BrokenPipeError:
                os._exit(0)


def read_commands(commands: "queue.Queue[WorkerCommand]") -> None:
    """Queue every command of stdin. At its end the process exits at once, even in the middle of a step."""
    try:
        for line in sys.stdin.buffer:
            try:
                commands.put(worker_command.validate_json(line))
            except ValidationError as error:
                _log.error("a command was not understood and is ignored: %s", error)
    finally:
        os._exit(0)


def main(arguments: list[str] | None = None) -> None:
    """Serve slices until stdin ends."""
    options = _options(arguments)
    os.environ.update(PROCESS_ENVIRONMENT)
    configure_logs(format_of())
    # Ctrl-C goes to the whole process group; whether the worker ends is for its dispatcher to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = _join(options) if options.rank is not None else None
    follows = os.environ.get("RANK", "0") != "0"
    send = Channel().send if not follows else _say_nothing
    group = None
    if options.ranks > 1 and options.rank is None and not follows:
        group = WorkerGroup(options.ranks, sys.argv[1:])
        listener = group.listener
    commands: queue.Queue[WorkerCommand] = queue.Queue()
    threading.Thread(target=read_commands, args=(commands,), name="commands", daemon=True).start()
    # Imported late: stdin and stdout are guarded before any library can print or hang.
    import_module("trainer.worker.start").serve(options, commands, send, group, listener)


def _join(options: argparse.Namespace) -> socket.socket | None:
    """Make this process one rank of a group that others are started for; the socket at which rank 0 waits for them."""
    os.environ.update(joined_environment(options.rank, options.ranks, options.leader))
    if options.rank:
        return None
    return socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))


def _say_nothing(message: BaseModel) -> None:
    """What a rank that is not the first says."""


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description=__doc__)
    parser.add_argument("--snapshots", required=True, help="folder or object store (URL) of all snapshots")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what decides the last bits")
    parser.add_argument("--resident", type=int, default=4, help="idle trials that stay on the base")
    parser.add_argument("--ranks", type=int, default=1, help="processes that share one base model, a device each")
    parser.add_argument(
        "--rank-timeout-seconds", type=float, default=600.0, help="the longest that one rank may wait for another"
    )
    parser.add_argument("--rank", type=int, help="this process is that rank of a group; the others are started apart")
    parser.add_argument("--leader", help="HOST:PORT at which rank 0 of such a group waits for the others")
    add_token_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
