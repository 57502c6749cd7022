"""Processes that compute cells, each with cells of its own one after the other."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from benchmarks.search.cells import Cell, Row, row_from, to_line

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def compute(cells: Sequence[Cell], command: Sequence[str], jobs: int) -> Iterator[Row]:
    """Rows as they are done, by `jobs` processes of the command (see `replay.serve`).

    Raises:
        RuntimeError: a process ended before its row was done. What was done before is out.
    """
    wanted: Queue[Cell] = Queue()
    done: Queue[Row | RuntimeError] = Queue()
    for cell in cells:
        wanted.put(cell)
    threads = [Thread(target=_work, args=(command, wanted, done), daemon=True) for _ in range(min(jobs, len(cells)))]
    for thread in threads:
        thread.start()
    for _ in cells:
        row = done.get()
        if isinstance(row, RuntimeError):
            raise row
        yield row
    for thread in threads:
        thread.join()


def _work(command: Sequence[str], wanted: Queue[Cell], done: Queue[Row | RuntimeError]) -> None:
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            try:
                cell = wanted.get_nowait()
            except Empty:
                return
            try:
                process.stdin.write(to_line(cell) + "\n")
                process.stdin.flush()
                done.put(row_from(process.stdout.readline()))
            except (BrokenPipeError, json.JSONDecodeError):
                done.put(RuntimeError(f"the process of {command[0]} ended in {cell}: its error is above"))
                return
