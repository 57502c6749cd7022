"""`python guarded.py server ...`: MLflow's command line, which ends with whoever holds the other end of standard input.

MLflow starts processes that its own end does not end; so the whole process group, which must be its own, is ended. Runs
in MLflow's environment and imports nothing of ours.
"""

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)  # its data are PostgreSQL's, and what was told half is told again


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    sys.argv = ["mlflow", *sys.argv[1:]]
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)
