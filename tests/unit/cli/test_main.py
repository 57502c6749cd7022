"""Exit codes and the one sentence on stderr."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from hpo_service.cli import app, main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    code = stopped.value.code
    return code if isinstance(code, int) else int(bool(code))


@pytest.fixture(autouse=True)
def _no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("hpo_service.client.http._FIRST_DELAY_SECONDS", 0.0)


def test_help_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "study" in capsys.readouterr().out


def _commands(command: object, *names: str) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _commands(inner, *names, name)
    elif isinstance(command, TyperCommand):
        yield names, command


@pytest.mark.parametrize(("names", "command"), [*_commands(get_command(app))], ids=lambda value: str(value)[:40])
def test_every_word_of_a_help_is_shown(
    names: tuple[str, ...], command: TyperCommand, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in brackets is markup for what prints it, and was swallowed."""
    monkeypatch.setenv("COLUMNS", "200")
    assert run(*names, "--help") == 0
    shown = re.sub(r"[^\w.:,;()\[\]@=`/'-]", "", capsys.readouterr().out)
    for parameter in command.params:
        for word in (getattr(parameter, "help", None) or "").split():
            assert re.sub(r"[^\w.:,;()\[\]@=`/'-]", "", word) in shown, (parameter.name, word)


def test_wrong_usage_is_two() -> None:
    assert run("study", "create") == 2
    assert run("nonsense") == 2
    assert run("trial", "show", "name", "minus-one") == 2


def test_an_invalid_file_is_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text("a: [1\n")
    assert run("study", "create", "-f", str(tmp_path / "study.yaml")) == 4
    assert capsys.readouterr().err.startswith("Error: ")


def test_without_a_key_the_remedy_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("study", "list") == 1
    said = capsys.readouterr()
    assert "hpo up" in said.err
    assert said.out == ""


def test_without_a_service_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_API_KEY", "hpo_key_1_x")
    monkeypatch.setenv("HPO_URL", "http://127.0.0.1:9")
    assert run("study", "show", "first") == 1
    assert "No service answers at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "home" / "admin.key"
    key.parent.mkdir()
    key.write_text("hpo_key_1_x")
    key.chmod(0o644)
    assert run("study", "list") == 1
    assert "chmod 600" in capsys.readouterr().err


def test_a_setting_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HPO_PORT", "99999")
    assert run("up") == 1
    assert "HPO_PORT is '99999'" in capsys.readouterr().err


def test_a_secret_in_the_url_of_the_snapshots_is_refused_and_not_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_SNAPSHOTS", "s3://key:canary@bucket/prefix")
    for command in ("up", "doctor"):
        assert run(command) == 1
        said = capsys.readouterr()
        assert "credentials come from the environment" in " ".join((said.err + said.out).split())
        assert "canary" not in said.err + said.out


def test_deleting_asks_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run("study", "delete", "first") == 1
    assert "--yes" in capsys.readouterr().err


def test_doctor_fails_without_a_service_and_names_remedies(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert "hpo up" in out
    assert "\x1b" not in out
