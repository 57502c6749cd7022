"""`python -m tests.chaos.worker STEP_SECONDS REPEATS ...`: the real worker, on an engine without a model.

With REPEATS other than 0, the seed, it says some of its messages twice, and some once more much later. All other
arguments are the worker's own. Of a group whose ranks are started apart, rank 0 does all the work.
"""

import os
import random
import sys

from tests.chaos import without_torch


def main(step_seconds: float, repeats: int, arguments: list[str]) -> None:
    """Serve slices until stdin ends."""
    if "--rank" in arguments:
        if arguments[arguments.index("--rank") + 1] != "0":
            sys.stdin.read()
            return
        arguments = arguments[: arguments.index("--ranks")]
    without_torch.install()
    # Imported late: whatever the trainer needs of torch is now the stand-in's.
    from tests.chaos.engine import MarkingEngine
    from trainer.worker import __main__ as worker
    from trainer.worker import jobs
    from trainer.worker.resident_trials import Residents

    Residents._loaded = lambda self, spec: MarkingEngine(spec, step_seconds)  # type: ignore[method-assign]
    Residents.repeats = lambda self, engine, spec, micro_batch: None  # type: ignore[method-assign]
    jobs.COMMANDS["check_data"] = (sys.executable, "-m", "tests.chaos.data_check")
    if repeats:
        _repeat(worker.Channel, random.Random(f"{repeats} {os.getpid()}"))
    worker.main(arguments)


def _repeat(channel: type, source: random.Random) -> None:
    """Make its instances say some things again."""
    said: list[object] = []
    send = channel.send  # type: ignore[attr-defined]

    def send_again(self: object, message: object) -> None:
        send(self, message)
        said.append(message)
        if source.random() < 0.1:
            send(self, message)
        if source.random() < 0.1:
            send(self, source.choice(said[1:] or said))

    channel.send = send_again  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
