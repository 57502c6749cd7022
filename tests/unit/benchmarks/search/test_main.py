"""The command from end to end, on a small table."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search import __main__ as command
from tests.unit.benchmarks.search.curve_tables import saved

ARGUMENTS = "--workers 4 --seeds 2 --strategies asha --subject asha --budget 4 --jobs 1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with results of its own; this environment has Optuna, so that it can be the peers'."""
    (tmp_path / "curves").mkdir()
    saved(tmp_path / "curves")
    monkeypatch.setattr(command, "COMMITTED", tmp_path / "results")
    monkeypatch.setattr(command, "PEERS_PYTHON", Path(sys.executable))
    monkeypatch.setattr(command, "draw", lambda *_: None)

    def run(*more: str) -> dict[str, Any]:
        arguments = [*ARGUMENTS.split(), "--curves", str(tmp_path / "curves"), "--out", str(tmp_path / "out"), *more]
        monkeypatch.setattr(sys, "argv", ["search", *arguments])
        command.main()
        printed: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return printed

    return run


def test_a_rerun_computes_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("--commit-ours")
    assert first["held_apart_tasks"]["tasks"] == ["bowl"]
    assert first["strategies"]["article"]["4"]["seeds"] == 2
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"article.jsonl", "asha.jsonl"}
    monkeypatch.setattr(command, "PEERS_PYTHON", tmp_path / "no python")
    monkeypatch.setattr(command, "compute", lambda *_: pytest.fail("nothing was to be computed"))
    assert run() == first
    assert "asha, tpe" in (tmp_path / "out" / "table.md").read_text()


def test_a_peer_that_is_not_installed_is_told_with_the_remedy(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PEERS_PYTHON", tmp_path / "no python")
    with pytest.raises(SystemExit, match=r"rows of article are missing .* run `make peers`"):
        run()


def test_an_unknown_strategy_is_told(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--strategies", "ashes")
    assert "no strategy is called ashes; there are freeze_thaw, asha" in capsys.readouterr().err
