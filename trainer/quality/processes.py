"""Pure functions over many tasks: here, or in processes that are started for it and end with this one."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, Self, TypeVar

from trainer.common.errors import TrainerError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

#: fewer tasks than this are done faster than a process starts
_FEW = 3


class ProcessLost(TrainerError):
    """A process was killed from outside."""


class Processes:
    """Up to `count` processes. With 1, or for few tasks, everything happens in this one; answers are the same."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Task], Answer], tasks: Iterable[Task]) -> Iterator[Answer]:
        """Answers in the order of the tasks, of which only a few are held at any time.

        `function` must be importable by name; what it raises is raised here.

        Raises:
            ProcessLost: a process was killed.
        """
        rest = iter(tasks)
        first = list(islice(rest, _FEW))
        if self._count == 1 or (len(first) < _FEW and self._pool is None):
            yield from map(function, chain(first, rest))
            return
        pool = self._started()
        waiting: deque[Future[Answer]] = deque()
        try:
            for task in chain(first, rest):
                waiting.append(pool.submit(function, task))
                if len(waiting) > 2 * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ProcessLost(
                f"one of {self._count} processes was killed, perhaps because memory ran out; "
                "give fewer with --processes"
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, never forked: tokenizers and rensa have threads, which a fork would lose.
            self._pool = ProcessPoolExecutor(self._count, mp_context=get_context("spawn"), initializer=_begin)
        return self._pool


def _begin() -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os._exit(1)
