"""A job on a worker: a child process that runs a verb of `python -m trainer`, looked after between slices' turns.

The task goes in as one line of JSON on stdin, which then stays open: the child ends when it closes, so it cannot
outlive its worker. The last line of stdout is the report; talk goes to stderr.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.spec import Job, JobResult, Outcome

#: Exit statuses with a report on stdout: passed or warned, and failed. A report that says FAIL is a job that is done.
_WITH_REPORT = (0, 3)
#: Exit statuses with a sentence about data, or about the task, on stderr. Python's own 1 says nothing about them.
REFUSED = 4
REFUSED_TASK = 5
_REFUSALS = {REFUSED: Outcome.DATA_ERROR, REFUSED_TASK: Outcome.USER_ERROR}
_MESSAGE_CHARACTERS = 500
_TAIL_BYTES = 4 << 20
_DELIVER = (sys.executable, "-m", "trainer", "deliver", "--task", "-")
#: The command of each kind of task.
COMMANDS: dict[str, tuple[str, ...]] = {
    "check_data": (sys.executable, "-m", "trainer", "check-data", "--task", "-"),
    "check_paths": (sys.executable, "-m", "trainer", "check-paths", "--task", "-"),
    "merge": _DELIVER,
    "quantize": _DELIVER,
}


class JobRun:
    """One attempt at a job. Nothing here waits for the child, except `stop`, which kills it."""

    def __init__(self, job: Job, command: Sequence[str] | None = None) -> None:
        """Start the child. Raises OSError if that is impossible."""
        self.job = job
        self._started_at = time.monotonic()
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command or COMMANDS[job.task.kind],
            stdin=subprocess.PIPE,
            stdout=self._stdout,
            stderr=self._stderr,
            # Its own session, so that it can be killed with children of its own; and no GPU: slices have them all.
            start_new_session=True,
            env={**os.environ, **PROCESS_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        )
        with suppress(BrokenPipeError):
            self._stdin.write(job.task.model_dump_json().encode() + b"\n")
            self._stdin.flush()

    def poll(self) -> JobResult | None:
        """The result once the child has ended; it is handed out once."""
        code = self._process.poll()
        if code is None:
            return None
        result = self._result(code)
        self._close()
        return result

    def stop(self) -> JobResult:
        """Kill the child: the attempt is preempted and leaves nothing."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()
        return self._ended(Outcome.PREEMPTED, message="the job was stopped")

    @property
    def _stdin(self) -> IO[bytes]:
        stdin = self._process.stdin
        assert stdin is not None
        return stdin

    def _result(self, code: int) -> JobResult:
        if code in _WITH_REPORT:
            try:
                report = json.loads(_last_line(self._stdout))
            except ValueError as error:
                return self._ended(Outcome.INFRA_ERROR, message=f"the job's last line is no report: {error}")
            if isinstance(report, dict):
                return self._ended(Outcome.DONE, report=report)
            return self._ended(Outcome.INFRA_ERROR, message="the job's last line is no report")
        said = _last_line(self._stderr).removeprefix("error: ")[:_MESSAGE_CHARACTERS]
        if code in _REFUSALS:
            return self._ended(_REFUSALS[code], message=said or "the job was refused without a reason")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._ended(Outcome.INFRA_ERROR, message=f"the job ended with {how}: {said}".removesuffix(": "))

    def _ended(self, outcome: Outcome, *, report: dict[str, Any] | None = None, message: str = "") -> JobResult:
        return JobResult(
            job_id=self.job.job_id,
            attempt=self.job.attempt,
            outcome=outcome,
            report=report,
            seconds=time.monotonic() - self._started_at,
            message=message,
        )

    def _close(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
        self._stderr.close()


class JobRuns:
    """The jobs of one worker, by token; what they write for a while lies in `scratch`, what is kept in `snapshots`.

    They compute on so many `threads`.
    """

    def __init__(self, scratch: Path, snapshots: str, threads: int) -> None:
        self._scratch = scratch
        self._snapshots = snapshots
        self._threads = threads
        self._runs: dict[tuple[int, int], JobRun] = {}

    def __bool__(self) -> bool:
        """Whether any runs."""
        return bool(self._runs)

    def start(self, job: Job) -> JobResult | None:
        """Begin; the result at once if that is impossible. A token that runs already is ignored."""
        if job.token in self._runs:
            return None
        try:
            self._runs[job.token] = JobRun(job, self._command(job.task.kind))
        except OSError as error:
            message = f"the job could not be started: {error}"
            return JobResult(
                job_id=job.job_id,
                attempt=job.attempt,
                outcome=Outcome.INFRA_ERROR,
                message=message[:_MESSAGE_CHARACTERS],
            )
        return None

    def _command(self, kind: str) -> tuple[str, ...]:
        scratch = () if kind == "check_paths" else ("--scratch", str(self._scratch))
        kept = ("--snapshots", self._snapshots, "--threads", str(self._threads)) if COMMANDS[kind] is _DELIVER else ()
        return (*COMMANDS[kind], *scratch, *kept)

    def stop(self, token: tuple[int, int]) -> JobResult | None:
        """End the job at once; None if no such job runs here."""
        run = self._runs.pop(token, None)
        return None if run is None else run.stop()

    def ended(self) -> list[JobResult]:
        """Results of those that ended since the last call."""
        results = []
        for token, run in list(self._runs.items()):
            result = run.poll()
            if result is not None:
                del self._runs[token]
                results.append(result)
        return results


def _last_line(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL_BYTES))
    lines = [line for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
