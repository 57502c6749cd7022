"""`python -m tests.chaos.worker --step-seconds S ...`: the real worker, its loop, channel and snapshots, on no model.

All other options are the worker's own.
"""

import sys

from tests.chaos import without_torch


def main(step_seconds: float, arguments: list[str]) -> None:
    """Serve slices until stdin ends."""
    without_torch.install()
    # Imported late: whatever the trainer needs of torch is now the stand-in's.
    from tests.chaos.engine import MarkingEngine
    from trainer import jobs, worker
    from trainer.residents import Residents

    Residents._loaded = lambda self, spec: MarkingEngine(spec, step_seconds)  # type: ignore[method-assign]
    jobs.COMMANDS["check_data"] = (sys.executable, "-m", "tests.chaos.data_check")
    worker.main(arguments)


if __name__ == "__main__":
    assert sys.argv[1] == "--step-seconds"
    main(float(sys.argv[2]), sys.argv[3:])
