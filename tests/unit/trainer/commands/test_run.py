"""`python -m trainer run`: one configuration to its end."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.__main__ import main
from trainer.accounting.devices import device_name
from trainer.commands.run import RunError, read_trial_file
from trainer.spec import Outcome, Slice, SliceResult, TrialSpec
from trainer.training.engines.resident import ResidentEngine
from trainer.worker.slice_report import abandoned

MakeSpec = Callable[..., TrialSpec]


def write_trial(path: Path, spec: TrialSpec, **more: Any) -> Path:
    path.write_text(json.dumps({"apiVersion": "hpo/v1", "kind": "BestParams", **spec.model_dump(), **more}))
    return path


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", "run", *map(str, arguments)]
    root = Path(__file__).parents[4]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, check=False, timeout=60
    )


def test_memory_that_runs_out_on_a_rank_halves_the_micro_batch_once(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Slice] = []

    def run_in_group(slice_: Slice, *_: object) -> SliceResult:
        given.append(slice_)
        tried = slice_.micro_batch or 4
        return abandoned(slice_, Outcome.OOM, f"no room for {tried}").model_copy(update={"micro_batch": tried})

    monkeypatch.setattr("trainer.commands.run.run_in_group", run_in_group)
    file = write_trial(tmp_path / "trial.yaml", make_spec(ranks=2))
    assert main(["run", str(file), "--output-dir", str(tmp_path / "out")]) == 1
    assert [(slice_.attempt, slice_.micro_batch) for slice_ in given] == [(1, None), (2, 2)]
    said = capsys.readouterr().err
    assert "no room for 4; goes on with 2 at the same effective batch" in said
    assert "oom: no room for 2" in said


def test_a_run_gives_what_the_engine_gives_and_resumes(
    make_spec: MakeSpec,
    engine: ResidentEngine,
    evaluate: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = make_spec(lora_dropout=0.1, checkpoint_every_steps=4)
    trial = engine.admit(spec, None)
    tokens = 0
    for rung in (16, 40, 74):
        tokens += sum(step.tokens for step in engine.advance(trial, rung))
        evaluate(engine, trial)
    file = write_trial(tmp_path / "trial.yaml", spec, metadata={"name": "x"})
    done = run(file, "--output-dir", "out", "--threads", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["eval_loss"] == evaluate(engine, trial).loss
    assert (summary["examples"], summary["steps"], summary["tokens"]) == (74, 10, tokens)
    phases = summary["phase_seconds"]
    assert phases.keys() == {"load", "data", "train", "evaluate", "snapshot"}
    assert 0 < sum(phases.values()) <= summary["seconds"]
    assert summary["tokens_per_second"] == pytest.approx(tokens / (phases["train"] + phases["data"]), rel=0.05)
    assert {path.name for path in (tmp_path / summary["adapter"]).iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["run", str(file), "--output-dir", "out", "--threads", "1"]) == 1
    assert capsys.readouterr().err == "error: out already holds a run: pass --resume auto or another --output-dir\n"
    damaged = tmp_path / "out/snapshots/rung-74/adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main(["run", str(file), "--output-dir", "out", "--resume", "auto", "--threads", "1"]) == 0
    resumed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (resumed["eval_loss"], resumed["steps"]) == (summary["eval_loss"], 2)


def test_a_run_does_not_go_on_with_other_rows(
    make_spec: MakeSpec, row_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Path(shutil.copy(row_files[0], tmp_path / "train.jsonl"))
    file = write_trial(tmp_path / "trial.yaml", make_spec(train=str(rows), epochs=0.2))
    options = ["run", str(file), "--output-dir", str(tmp_path / "out"), "--threads", "1"]
    assert main(options) == 0
    rows.write_text(rows.read_text().replace("cat", "dog"))
    capsys.readouterr()
    assert main([*options, "--resume", "auto"]) == 1
    said = capsys.readouterr().err
    assert f"error: data_error: {rows} has changed since training on it began" in said
    assert "another --output-dir" in said
    assert "Traceback" not in said


def test_paths_are_looked_up_here_then_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for path in ("here/rows.jsonl", "there/rows.jsonl", "there/model"):
        (tmp_path / path).touch()
    file = tmp_path / "there/trial.yaml"
    file.write_text(
        "model: {path: model}\ndata: {train: rows.jsonl, eval: gone.jsonl}\nparameters: {learning_rate: 1e-4}\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    trial = read_trial_file(file)
    assert (trial.data.train, trial.data.eval) == ("rows.jsonl", "gone.jsonl")
    assert trial.model.path == str(tmp_path / "there/model")
    assert trial.parameters.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model: [", "is not YAML"),
        ("model: {path: m}\ndata: {train: t}\nparameters: {lora_rank: 3}\n", "parameters.lora_rank: Extra inputs"),
        ("3", "the file: Input should be"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(content)
    with pytest.raises(RunError, match=problem) as caught:
        read_trial_file(file)
    assert "\n" not in str(caught.value)


def test_exit_statuses(
    tmp_path: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["run"])
    capsys.readouterr()
    assert main(["run", "nowhere.yaml"]) == 1
    assert capsys.readouterr().err == "error: nowhere.yaml: No such file or directory\n"
    file = write_trial(tmp_path / "trial.yaml", make_spec())
    assert main(["run", str(file), "--model", "no-such-model", "--threads", "1"]) == 1
    assert capsys.readouterr().err == "error: user_error: model no-such-model is not a folder on this machine\n"


def test_a_price_table_gives_the_cost(make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_trial(tmp_path / "trial.yaml", make_spec(epochs=0.2))
    name = device_name(torch.device("cpu"))
    (tmp_path / "prices.csv").write_text(f'AcceleratorName,Price\n"{name}",3600\n')
    options = ["--threads", str(torch.get_num_threads()), "--prices", str(tmp_path / "prices.csv")]
    assert main(["run", str(file), "--output-dir", str(tmp_path / "out"), *options]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["cost_usd"] == pytest.approx(sum(summary["phase_seconds"].values()), abs=0.01)
    (tmp_path / "prices.csv").write_text("AcceleratorName,Prize\nL4,1\n")
    assert main(["run", str(file), "--output-dir", str(tmp_path / "other"), *options]) == 1
    assert "prices.csv line 1: column 'Prize' is not known" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_auto_is_resolved_for_this_device_and_told(
    make_spec: MakeSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It begins the same trial as one that names the dtype, so each goes on with the other's snapshots."""
    named = write_trial(tmp_path / "named.yaml", make_spec(epochs=0.3))
    auto = write_trial(tmp_path / "auto.yaml", make_spec(epochs=0.3, dtype="auto"))
    options = ["--output-dir", str(tmp_path / "out"), "--threads", "1"]
    assert main(["run", str(auto), *options]) == 0
    said = capsys.readouterr()
    assert "model.dtype auto is float32 on " in said.err
    assert json.loads(said.out.splitlines()[-1])["dtype"] == "float32"
    assert main(["run", str(named), *options, "--resume", "auto"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["steps"] == 0
    assert "model.dtype auto" not in said.err
