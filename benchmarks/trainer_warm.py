"""From a slice to its first step: in a warm worker, in a cold process, and what it costs to change trials.

`python -m benchmarks.trainer_warm JSON` is the warm side: medians over slices of fresh trials in one process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.trainer_work import Work
from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.spec import Slice, StartSlice

_SLICES = 8


def a_slice(work: Work, number: int) -> Slice:
    """One step of a fresh trial."""
    trial = work.trial()
    training = trial.training.model_copy(update={"seed": number})
    return Slice(
        slice_id=number,
        attempt=1,
        trial=trial.model_copy(update={"training": training}),
        until_examples=work.batch,
        snapshot_dir=f"1/{number}/1/1",
    )


def warm(work: Work) -> dict[str, float]:
    """Milliseconds: `first_step_ms` up to the first step's end, `step_ms` of that step alone, `swap_ms` of an admission
    and an eviction."""
    import torch

    from trainer.data.token_cache import TokenCache
    from trainer.snapshots.snapshot import SnapshotStore
    from trainer.snapshots.stores.folder import FolderStore
    from trainer.worker.resident_trials import Residents
    from trainer.worker.slice_run import SliceRun

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    residents = Residents(device, 1, TokenCache(Path(os.environ["BENCHMARK_TOKENS"]), 1))
    first, steps, swaps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(FolderStore(Path(folder)))
        for number in range(1, _SLICES + 1):
            start = time.perf_counter()
            run = SliceRun(a_slice(work, number), residents, store, lambda _: None)
            run.tick()
            admitted = time.perf_counter()
            run.tick()
            first.append(time.perf_counter() - start)
            steps.append(time.perf_counter() - admitted)
            while (result := run.tick()) is None:
                pass
            assert result.usage.steps == 1, result
            engine = residents.engine(work.trial())
            start = time.perf_counter()
            engine.evict(engine.admit(work.trial(), None))
            swaps.append(time.perf_counter() - start)
    found = {"first_step_ms": first[1:], "step_ms": steps[1:], "swap_ms": swaps}
    return {name: 1000 * median(seconds) for name, seconds in found.items()} | {"first_load_ms": 1000 * first[0]}


def cold_first_step_ms(work: Work, environment: dict[str, str]) -> float:
    """Milliseconds from the start of a worker process to the result of a slice of one step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "trainer.worker",
            "--snapshots",
            folder,
            "--threads",
            str(work.threads),
        ]
        command += ["--token-cache", environment["BENCHMARK_TOKENS"]]
        start = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(StartSlice(slice=a_slice(work, 1)).model_dump_json().encode() + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                message: dict[str, Any] = json.loads(line)
                if message["type"] == "result" or (message["type"] == "progress" and message["step"] >= 1):
                    break
            seconds = time.perf_counter() - start
            process.stdin.close()
    return 1000 * seconds


def main() -> None:
    """Measure the warm side under the same environment as a worker's."""
    work = Work.model_validate_json(sys.argv[1])
    os.environ.update(PROCESS_ENVIRONMENT)
    import torch

    torch.set_num_threads(work.threads)
    print(json.dumps(warm(work)))


if __name__ == "__main__":
    main()
