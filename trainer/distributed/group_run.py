"""One slice on a worker group of this machine that lives as long as the slice: `python -m trainer run` on ranks."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import torch

from trainer.common.errors import TrainerError, UserError
from trainer.spec import Progress, Slice, SliceResult, StartSlice, worker_message

_GOODBYE_SECONDS = 10.0


def run_in_group(
    slice_: Slice, snapshots: str, options: argparse.Namespace, say: Callable[[Progress], None]
) -> SliceResult:
    """Run `slice_` to its end on as many ranks as its trial asks for; `snapshots` is the location of their store.

    `options` are those of the command; its CPU threads are shared out to the ranks.

    Raises:
        UserError: this machine has fewer GPUs than ranks.
        TrainerError: the group ended before the slice did.
    """
    ranks = slice_.trial.training.ranks
    _require_devices(ranks)
    arguments = [
        *("--snapshots", snapshots),
        *("--ranks", str(ranks)),
        *("--threads", str(max(1, options.threads // ranks))),
        *("--token-cache", str(options.token_cache)),
        *("--tokenize-processes", str(options.tokenize_processes)),
    ]
    with _worker(arguments) as worker:
        commands, messages = _pipes(worker)
        # The end of its stdout says more about a worker that is gone than a broken pipe does.
        with suppress(BrokenPipeError):
            commands.write(StartSlice(slice=slice_).model_dump_json().encode() + b"\n")
            commands.flush()
        for line in messages:
            message = worker_message.validate_json(line)
            if isinstance(message, Progress):
                say(message)
            elif isinstance(message, SliceResult):
                return message
        status = worker.wait()
    how = f"signal {-status}" if status < 0 else f"status {status}"
    raise TrainerError(
        f"the worker group of {ranks} ranks ended with {how} before the run did (its reasons are above); "
        "go on with --resume auto"
    )


def _require_devices(ranks: int) -> None:
    if torch.cuda.is_available() and torch.cuda.device_count() < ranks:
        raise UserError(
            f"training.ranks is {ranks}, a GPU each, and this machine has {torch.cuda.device_count()}: run it where "
            "there are as many, or set training.ranks to 1"
        )


@contextmanager
def _worker(arguments: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker whose end, and that of its ranks, is the end of the context, whatever ends it."""
    command = [sys.executable, "-m", "trainer.worker", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        # The end of its stdin ends a worker.
        with suppress(BrokenPipeError):
            _pipes(process)[0].close()
        try:
            process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes]]:
    """(stdin, stdout)."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
