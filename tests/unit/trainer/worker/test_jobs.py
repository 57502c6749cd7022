"""Jobs as child processes: what counts as done, what is lost, and that none outlives its worker."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from trainer.quality.processes import Processes, ProcessLost
from trainer.spec import CheckData, DataSpec, Job, JobResult, Outcome, QualityReport
from trainer.worker import jobs
from trainer.worker.jobs import JobRun, JobRuns

Answer = TypeVar("Answer")

EXAMPLES = Path(__file__).parents[4] / "examples"
TIMEOUT_SECONDS = 60.0
WAITS = "import sys; sys.stdin.buffer.read()"


def a_job(train: str = "train.jsonl", *, attempt: int = 1) -> Job:
    return Job(job_id=7, attempt=attempt, task=CheckData(model="model", data=DataSpec(train=train)))


def child(code: str, job: Job | None = None) -> JobRun:
    return JobRun(job or a_job(), [sys.executable, "-c", code])


def until(answer: Callable[[], Answer | None]) -> Answer:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (known := answer()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return known


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def result_of(code: str) -> JobResult:
    return until(child(code).poll)


@pytest.mark.parametrize("status", [0, 3])
def test_the_last_line_is_the_report(status: int) -> None:
    code = f"import sys, json; line = sys.stdin.readline(); print('talk'); print(line); sys.exit({status})"
    result = result_of(code)
    assert (result.job_id, result.attempt, result.outcome) == (7, 1, Outcome.DONE)
    assert result.report is not None
    assert CheckData.model_validate(result.report) == a_job().task
    assert result.seconds > 0


@pytest.mark.parametrize(
    ("code", "outcome", "words"),
    [
        ("import sys; print('error: no such file', file=sys.stderr); sys.exit(4)", Outcome.DATA_ERROR, "no such file"),
        ("raise SystemExit(4)", Outcome.DATA_ERROR, "without a reason"),
        ("import sys; print('error: no llama', file=sys.stderr); sys.exit(5)", Outcome.USER_ERROR, "no llama"),
        ("raise OSError('the disk is full')", Outcome.INFRA_ERROR, "exit code 1: OSError: the disk is full"),
        ("import trainer.no_such_part", Outcome.INFRA_ERROR, "No module named"),
        ("import sys; print('x'); sys.exit(2)", Outcome.INFRA_ERROR, "exit code 2"),
        ("import os; os.kill(os.getpid(), 9)", Outcome.INFRA_ERROR, "signal SIGKILL"),
        ("print('all is well')", Outcome.INFRA_ERROR, "no report"),
        ("print('3')", Outcome.INFRA_ERROR, "no report"),
        ("", Outcome.INFRA_ERROR, "no report"),
    ],
)
def test_how_a_job_can_fail(code: str, outcome: Outcome, words: str) -> None:
    result = result_of(code)
    assert result.outcome is outcome
    assert words in result.message
    assert result.report is None


def test_much_output_does_not_block_it() -> None:
    code = """import sys; sys.stderr.write('x' * 10_000_000); print('{"text": "' + 'y' * 1_000_000 + '"}')"""
    assert result_of(code).report == {"text": "y" * 1_000_000}


def test_a_stopped_job_is_killed_with_its_children() -> None:
    run = child("import subprocess; subprocess.run(['sleep', '60'])")
    children = until(lambda: psutil.Process(run._process.pid).children())
    assert run.stop().outcome is Outcome.PREEMPTED
    until(lambda: not any(alive(one.pid) for one in children))


def test_it_ends_when_its_worker_does() -> None:
    worker = (
        "import sys; sys.path.insert(0, '.'); from tests.unit.trainer.worker.test_jobs import child, WAITS;"
        "run = child(WAITS); print(run._process.pid, flush=True); import signal; signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", worker], stdout=subprocess.PIPE, cwd=EXAMPLES.parent, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.kill()
    until(lambda: not alive(pid))


def test_a_worker_keeps_its_jobs_by_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(jobs.COMMANDS, "check_data", (sys.executable, "-c", WAITS))
    runs = JobRuns(tmp_path, str(tmp_path / "snapshots"), 1)
    assert not runs
    assert runs.start(a_job()) is None
    assert runs.start(a_job()) is None
    assert runs
    assert runs.ended() == []
    assert runs.stop((7, 2)) is None
    stopped = runs.stop((7, 1))
    assert stopped is not None
    assert stopped.outcome is Outcome.PREEMPTED
    assert not runs
    monkeypatch.setitem(jobs.COMMANDS, "check_data", ("/nowhere/python",))
    refused = runs.start(a_job(attempt=2))
    assert refused is not None
    assert refused.outcome is Outcome.INFRA_ERROR


def test_a_killed_process_of_the_check_says_nothing_about_the_data() -> None:
    """Memory that runs out kills them."""
    with Processes(2) as pool, pytest.raises(ProcessLost, match="was killed") as lost:
        list(pool.map(os._exit, [9, 9, 9]))
    assert lost.value.outcome is Outcome.INFRA_ERROR


def test_the_real_check() -> None:
    data = DataSpec(train=str(EXAMPLES / "wordnet-instruct" / "eval.jsonl"), max_length=96)
    run = JobRun(Job(job_id=1, attempt=1, task=CheckData(model=str(EXAMPLES / "tiny-llama"), data=data)))
    result = until(run.poll)
    assert result.outcome is Outcome.DONE, result.message
    assert QualityReport.model_validate(result.report).train_rows == 380
    missing = until(JobRun(a_job()).poll)
    assert missing.outcome is Outcome.DATA_ERROR
    assert "is not a folder" in missing.message


def test_target_modules_are_looked_for_in_the_model_before_its_data(tmp_path: Path) -> None:
    """Without the weights: the folder holds none."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((EXAMPLES / "tiny-llama" / name).read_bytes())
    data = DataSpec(train=str(EXAMPLES / "wordnet-instruct" / "eval.jsonl"), max_length=96)

    def checked(*wanted: str) -> JobResult:
        task = CheckData(model=str(tmp_path), data=data, target_modules=wanted)
        return until(JobRun(Job(job_id=1, attempt=1, task=task)).poll)

    wrong = checked("all-linear", "q_prj", "q_proj,wte")
    assert wrong.outcome is Outcome.USER_ERROR
    has = "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert wrong.message == (
        f"target module 'q_prj' is not in the model; {has}; target module 'wte' is not in the model; {has}"
    )
    assert "safetensors" not in checked("mlp", "q_proj,v_proj").message
