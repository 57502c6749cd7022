"""Files committed to a branch; the work tree, the index and what is checked out are left alone."""

import subprocess
from pathlib import Path

import pytest

from hpo_service.cli.export_file import Destination, Exported, ExportFormat
from hpo_service.cli.git_branch import commit_file, read_base
from hpo_service.core.errors import InvalidRequest
from hpo_service.exporters import FORMATS
from tests.merging import answer


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit on branch main, a change that is staged and one that is not."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("[user]\nname = someone\nemail = someone@example.org\n")
    folder = tmp_path / "repository"
    (folder / "conf").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "conf" / "values.yaml").write_text("a: 1  # mine\n")
    (folder / "notes").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "notes").write_text("two\n")
    git(folder, "add", "notes")
    (folder / "notes").write_text("three\n")
    return folder


def test_a_new_branch_has_one_commit_more_and_nothing_else_changes(repository: Path) -> None:
    before = git(repository, "status", "--porcelain")
    commit = commit_file(repository / "conf" / "best.yaml", "b: 2\n", "hpo/first", "hpo: best")
    assert git(repository, "rev-parse", "hpo/first").strip() == commit
    assert git(repository, "log", "--format=%s", "hpo/first").split("\n")[:2] == ["hpo: best", "first"]
    assert git(repository, "show", "hpo/first:conf/best.yaml") == "b: 2\n"
    assert git(repository, "show", "hpo/first:notes") == "one\n"
    assert git(repository, "diff", "--name-only", "main", "hpo/first").split() == ["conf/best.yaml"]
    assert git(repository, "status", "--porcelain") == before
    assert git(repository, "branch", "--show-current").strip() == "main"
    assert not (repository / "conf" / "best.yaml").exists()


def test_a_branch_goes_on_and_the_same_file_is_no_commit(repository: Path) -> None:
    file = repository / "conf" / "best.yaml"
    first = commit_file(file, "b: 2\n", "hpo/first", "one")
    assert commit_file(file, "b: 2\n", "hpo/first", "two") is None
    assert commit_file(file, "b: 3\n", "hpo/first", "three") is not None
    assert git(repository, "rev-parse", "hpo/first~1").strip() == first


def test_a_repository_without_a_commit(tmp_path: Path, repository: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q", "-b", "main")
    assert commit_file(empty / "best.yaml", "b: 2\n", "hpo", "one") is not None
    assert git(empty, "show", "hpo:best.yaml") == "b: 2\n"


def test_merging_reads_the_branch_and_not_the_work_tree(repository: Path) -> None:
    file = repository / "conf" / "values.yaml"
    file.write_text("a: 9\n")
    assert read_base(file, "hpo/first") == "a: 1  # mine\n"
    where = Destination(merge=f"{file}:best", branch="hpo/first")
    where.deliver(Exported(text="", values=answer("hydra", lora_r=8), promotion=""), "one")
    merged = git(repository, "show", "hpo/first:conf/values.yaml")
    assert merged.startswith("a: 1  # mine\n# hpo: Trial 4 of study s: eval_loss 2.0\n")
    assert "\nbest:\n  parameters:\n    learning_rate: 0.0002\n    lora_r: 8\n" in merged
    assert file.read_text() == "a: 9\n"


def test_bytes_and_modes_stay_in_the_branch(repository: Path) -> None:
    """Line ends were changed on the way through git, and an executable file was none any more."""
    file = repository / "run.yaml"
    file.write_bytes("\ufefflora_r: 1\r\n# Übung\r\n".encode())
    file.chmod(0o755)
    git(repository, "add", "run.yaml")
    git(repository, "commit", "-q", "-m", "run", "--", "run.yaml")
    assert read_base(file, "hpo/run") == "\ufefflora_r: 1\r\n# Übung\r\n"
    commit_file(file, "\ufefflora_r: 8\r\n# Übung\r\n", "hpo/run", "one")
    blob = subprocess.run(["git", "show", "hpo/run:run.yaml"], cwd=repository, check=True, capture_output=True).stdout
    assert blob == "\ufefflora_r: 8\r\n# Übung\r\n".encode()
    assert git(repository, "ls-tree", "hpo/run", "run.yaml").startswith("100755 ")


def test_a_link_is_no_file_to_merge_into(repository: Path) -> None:
    (repository / "link.yaml").symlink_to("conf/values.yaml")
    git(repository, "add", "link.yaml")
    git(repository, "commit", "-q", "-m", "link", "--", "link.yaml")
    with pytest.raises(InvalidRequest, match="is a symbolic link"):
        read_base(repository / "link.yaml", "hpo/link")


@pytest.mark.parametrize(
    ("branch", "message"), [("main", "is checked out"), ("-x", "is no name"), ("a..b", "is no name")]
)
def test_branches_that_are_refused(repository: Path, branch: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        commit_file(repository / "best.yaml", "b: 2\n", branch, "one")
    assert git(repository, "rev-list", "--all", "--count").strip() == "1"


def test_outside_of_a_repository(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="in no git repository"):
        commit_file(tmp_path / "best.yaml", "b: 2\n", "hpo", "one")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="use one of them"):
        Destination(output=tmp_path / "a", merge="b:c")
    with pytest.raises(InvalidRequest, match="needs the name of the file"):
        Destination(branch="hpo")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Destination(merge=f"{tmp_path / 'none.yaml'}:a").deliver(
            Exported(text="", values=answer("trl"), promotion=""), "one"
        )


def test_the_commands_know_every_format() -> None:
    assert [str(format) for format in ExportFormat] == list(FORMATS)
