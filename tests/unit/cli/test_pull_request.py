"""Pull requests: what is pushed where, what gh and glab are told, and what to type without them."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpo_service.cli.export_file import Delivered
from hpo_service.cli.git_branch import commit_file
from hpo_service.cli.merge import Change
from hpo_service.cli.pull_request import propose
from hpo_service.cli.pull_request_body import body
from hpo_service.core.errors import SetupError

PROMOTION: dict[str, Any] = {
    "name": "bot", "version": 3, "study": "first", "trial_number": 7,
    "verdict": "It is better than the baseline.", "note": "for <b>us</b> | @all",
    "comparison": {"difference": -0.031, "half_width": 0.006, "loss": 1.99, "baseline_loss": 2.021, "seeds": 1,
                   "examples": 320, "baseline_examples": 160},
    "losses": {"confirmed_loss": 2.0, "confirmed_seeds": 3, "searched_loss": 1.98, "test_loss": 2.2},
    "bill": {"study_seconds": 100.0, "confirmation_seconds": 20.0, "study_usd": 1.0, "confirmation_usd": 0.25},
    "digests": {"trial": "a" * 64, "base_model": "b" * 64, "eval": None},
    "promoted_by": "ci", "created_at": "2026-11-24T00:00:00Z", "approved_by": "boss",
    "approved_at": "2026-11-25T00:00:00Z", "rollback_of": None,
}  # fmt: skip
FAKE = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
{ [ -z "$FAILS" ] || { echo "a pull request already exists" >&2; exit 1; }; }
echo "https://host.example/request/1"
"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a bare repository, which stands in for every host."""
    bare, programs = tmp_path / "bare.git", tmp_path / "programs"
    config = f'[user]\nname = x\nemail = x@example.org\n[url "{bare}"]\n' + "".join(
        f"insteadOf = {address}\n" for address in (
            "https://user:secret@github.com/acme/train.git", "git@gitlab.example.org:ml/group/train.git",
            "https://git.example.org/train",
        )
    )  # fmt: skip
    (tmp_path / "gitconfig").write_text(config)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "values.yaml").write_text("a: 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def host(repository: Path, address: str, *programs: str) -> Path:
    """Push main to a remote of this address, with these commands on PATH; the file to be proposed."""
    git(repository, "remote", "add", "origin", address)
    git(repository, "push", "-q", "-u", "origin", "main")
    for name in programs:
        program = repository.parent / "programs" / name
        program.write_text(FAKE)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    file = repository / "values.yaml"
    commit_file(file, "a: 2\n", "hpo/bot-3", "hpo: promotion bot@3")
    return file


def pushed(repository: Path) -> list[str]:
    return git(repository.parent / "bare.git", "branch", "--format=%(refname:short)").split()


def told(repository: Path) -> list[str]:
    return (repository.parent / "record").read_text().splitlines()


def test_github_by_gh(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = host(repository, "https://user:secret@github.com/acme/train.git", "gh", "glab")
    propose(file, "hpo/bot-3", "A title", "The body\n")
    shown = capsys.readouterr()
    assert pushed(repository) == ["hpo/bot-3", "main"]
    assert shown.out == "https://host.example/request/1\n"
    assert "Pushed branch hpo/bot-3 to origin (github.com)." in shown.err
    assert "secret" not in shown.err + shown.out
    said = told(repository)
    assert said[:-1] == [
        "pr", "create", "--head", "hpo/bot-3", "--base", "main", "--title", "A title", "--body-file",
    ]  # fmt: skip
    assert Path(said[-1]).read_text() == "The body\n"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "branch", "--show-current").strip() == "main"


def test_gitlab_by_glab(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = host(repository, "git@gitlab.example.org:ml/group/train.git", "gh", "glab")
    propose(file, "hpo/bot-3", "A title", "The\nbody\n")
    assert pushed(repository) == ["hpo/bot-3", "main"]
    assert told(repository) == [
        "mr", "create", "--source-branch", "hpo/bot-3", "--target-branch", "main", "--title", "A title", "--yes",
        "--description", "The", "body", "",
    ]  # fmt: skip
    assert "(gitlab.example.org)" in capsys.readouterr().err


@pytest.mark.parametrize(("address", "command", "page"), [
    ("https://user:secret@github.com/acme/train.git", "gh pr create --head hpo/bot-3 --base main --title 'A title'",
     "https://github.com/acme/train/pull/new/hpo/bot-3"),
    ("git@gitlab.example.org:ml/group/train.git", "glab mr create --source-branch hpo/bot-3 --target-branch main",
     "https://gitlab.example.org/ml/group/train/-/merge_requests/new?merge_request%5Bsource_branch%5D=hpo%2Fbot-3"),
    ("https://git.example.org/train", "", ""),
])  # fmt: skip
def test_without_the_hosts_command_it_says_what_to_type(
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    command: str,
    page: str,
) -> None:
    file = host(repository, address)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    propose(file, "hpo/bot-3", "A title", "The body\n")
    shown = capsys.readouterr()
    assert pushed(repository) == ["main"]
    lines = shown.out.splitlines()
    assert lines[0] == "git push origin hpo/bot-3"
    assert [line.startswith(command) for line in lines[1:]] == ([True] if command else [])
    assert page in shown.err
    assert "secret" not in shown.err + shown.out
    kept = Path(shown.err.splitlines()[-1].removeprefix("The text of the request is in ").removesuffix("."))
    assert kept.read_text() == "The body\n"
    assert all(str(kept) in line for line in lines[1:])
    assert git(repository, "status", "--porcelain") == ""


def test_without_a_remote_and_without_a_branch(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    propose(repository / "values.yaml", "hpo/bot-3", "A title", "x")
    assert "nothing to propose" in capsys.readouterr().err
    commit_file(repository / "values.yaml", "a: 2\n", "hpo/bot-3", "one")
    propose(repository / "values.yaml", "hpo/bot-3", "A title", "x")
    shown = capsys.readouterr()
    assert shown.out == "git push REMOTE hpo/bot-3\n"
    assert "no remote, so nothing was pushed" in shown.err


def test_a_refusal_of_the_host_says_what_was_done(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = host(repository, "https://user:secret@github.com/acme/train.git", "gh")
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(
        SetupError, match="Branch hpo/bot-3 is pushed, but gh opened no request: a pull request already"
    ):
        propose(file, "hpo/bot-3", "A title", "x")
    assert pushed(repository) == ["hpo/bot-3", "main"]


def test_the_evidence() -> None:
    changes = (Change(name="learning_rate", before="1e-3", after="0.0002"), Change(name="m", before=None, after="`|x"))
    text = body(
        PROMOTION,
        Delivered(
            path=Path("a.yaml"),
            changes=changes,
            missed=("lora_r 8: twice",),
            unwritten=("seed: *x is shared (line 4)",),
            batch="batch 16 = 2 x 8",
        ),
        "https://hpo.example.org",
    )
    for line in (
        "It is better than the baseline.",
        "| Gain over the baseline | -0.0310 loss (1.9900 instead of 2.0210), 95 % interval ± 0.0060, over the 1 new "
        "seed that both have, each at its own end: 320 and 160 examples |",
        "| Losses | confirmed 2.0000 (mean over 3 new seeds); in the search 1.9800; on test rows 2.2000 (mean over 3 "
        "new seeds) |",
        "| Cost of finding it | 120 device seconds (search 100, confirmation 20), 1.25 USD |",
        "| Study | [first](https://hpo.example.org/studies/first), trial 7 |",
        "| Promotion | [bot\\@3](https://hpo.example.org/promotions/bot/3), by ci on 2026-11-24 |",
        "| Approval | by boss on 2026-11-25 |",
        "| Note | for \\<b\\>us\\</b\\> \\| \\@\u200ball |",
        f"| SHA-256 | trial `{'a' * 12}`, base model `{'b' * 12}` |",
        "| `learning_rate` | `1e-3` | `0.0002` |",
        "| `m` |  | `'\\|x` |",
        "batch 16 = 2 x 8.",
        "### What is not as it was trained",
        "- lora\\_r 8: twice",
        "- seed: \\*x is shared (line 4)",
    ):
        assert line in text.splitlines(), line
    plain = PROMOTION | {"comparison": None, "approved_by": None, "rollback_of": 1, "note": ""}
    assert "| Approval | needs none: it repeats version 1 |" in body(plain, Delivered(path=Path("a")), "x")
    assert "The file is written as a whole" in body(plain, Delivered(path=Path("a")), "x")
