"""`python -m trainer run` of a trial for two ranks: the group it starts, its ends, and going on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from trainer.__main__ import main
from trainer.distributed.worker_group import RANK_LOST
from trainer.spec import TrialSpec

MakeSpec = Callable[..., TrialSpec]
ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 120.0


class Run:
    """The command in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.snapshots = folder / "out" / "snapshots"
        command = [sys.executable, "-m", "trainer", "run", "best.yaml", "--output-dir", "out", "--threads", "2"]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            # Where this suite runs in the background of a shell, Ctrl-C is ignored, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def checkpoints(self) -> set[Path]:
        return set(self.snapshots.glob("checkpoint-*/manifest.json"))

    def ranks(self) -> list[psutil.Process]:
        """The processes of the group that are there, rank 0 first."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_until(self, due: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not due():
            assert self.process.poll() is None, self.process.communicate()[1][-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> tuple[int, str, str]:
        """(exit status, stdout, the last line of stderr)."""
        out, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, out, err.splitlines()[-1]


@contextmanager
def started(folder: Path, *options: str) -> Iterator[Run]:
    run = Run(folder, *options)
    try:
        yield run
    finally:
        run.process.kill()


def losses(output: Path) -> dict[int, float]:
    lines = (output / "snapshots" / "log.jsonl").read_text().splitlines()
    return {step["step"]: step["loss"] for step in map(json.loads, lines)}


def test_an_interrupted_run_on_two_ranks_goes_on_and_is_that_of_one_rank(
    make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = {"max_lora_r": 8, "target_modules": "all-linear"}
    spec = make_spec(ranks=2, lora_dropout=0.1, epochs=6.0, checkpoint_every_steps=4, zero=room)
    best = {"apiVersion": "hpo/v1", "kind": "BestParams", "provenance": {"study": "pairs"}, **spec.model_dump()}
    (tmp_path / "best.yaml").write_text(json.dumps(best))

    with started(tmp_path) as run:
        run.wait_until(lambda: bool(run.checkpoints()))
        ranks = run.ranks()
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.end() == (130, "", "interrupted; continue with --resume auto")
        assert not psutil.wait_procs(ranks, timeout=10)[1]

    with started(tmp_path, "--resume", "auto") as run:
        status, out, _ = run.end()
        assert status == 0
    summary = json.loads(out.splitlines()[-1])
    assert {path.name for path in (tmp_path / summary["adapter"]).iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }

    training = spec.training.model_copy(update={"ranks": 1})
    alone = tmp_path / "alone.yaml"
    alone.write_text(spec.model_copy(update={"training": training}).model_dump_json())
    capsys.readouterr()
    assert main(["run", str(alone), "--output-dir", str(tmp_path / "alone"), "--threads", "1"]) == 0
    resident = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, expected = losses(tmp_path / "out"), losses(tmp_path / "alone")
    assert ours.keys() == expected.keys()
    assert 0 < summary["steps"] < resident["steps"] == len(ours)
    assert max(abs(ours[step] - expected[step]) for step in ours) <= 1e-5
    assert abs(summary["eval_loss"] - resident["eval_loss"]) <= 1e-5
    assert summary.keys() == resident.keys()


def test_a_rank_that_dies_at_its_start_ends_the_run(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text(make_spec(ranks=2).model_dump_json())
    with started(tmp_path) as run:
        run.wait_until(lambda: len(run.ranks()) == 2)
        ranks = run.ranks()
        ranks[1].send_signal(signal.SIGKILL)
        status, _, said = run.end()
        assert status == 1
        assert said == (
            f"error: the worker group of 2 ranks ended with status {RANK_LOST} before the run did "
            "(its reasons are above); go on with --resume auto"
        )
        assert not psutil.wait_procs(ranks, timeout=10)[1]


def test_fewer_gpus_than_ranks_is_said(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    file = tmp_path / "trial.yaml"
    file.write_text(make_spec(ranks=2).model_dump_json())
    assert main(["run", str(file), "--output-dir", str(tmp_path / "out")]) == 1
    assert "training.ranks is 2, a GPU each, and this machine has 1" in capsys.readouterr().err
