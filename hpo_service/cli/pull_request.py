"""A branch proposed to those who own a repository: by GitHub's or GitLab's own command, else by what to type."""

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import typer

from hpo_service.cli.git_branch import Repository
from hpo_service.cli.output import say
from hpo_service.core.errors import SetupError

#: `https://user@host:port/owner/name.git`, `ssh://git@host/...`, `git@host:owner/name.git`
_ADDRESS = re.compile(r"(?:\w+://(?:[^@/]*@)?([^/:]+)(?::\d+)?/|(?:[^@/:]+@)?([^/:@]+):)(.+?)(?:\.git)?/?")


@dataclass(frozen=True, kw_only=True)
class _Remote:
    """Where a branch is pushed to. `tool` is the command that opens requests there, None for other hosts."""

    name: str
    host: str | None
    project: str | None
    tool: str | None


def propose(path: Path, branch: str, title: str, body: str) -> None:
    """Push `branch` of the repository around `path` and open a request, if that can be done; else say how.

    Raises:
        SetupError: git cannot push, or the host's command fails.
    """
    repository = Repository.around(path)
    if repository.commit_of(f"refs/heads/{branch}") is None:
        say("There is nothing to propose: no branch was made.")
        return
    remote = _remote(repository)
    file = _kept(repository, branch, body)
    base = _base(repository, remote, branch)
    if remote is not None and remote.tool is not None and shutil.which(remote.tool):
        refspec = f"refs/heads/{branch}:refs/heads/{branch}"
        repository.run("push", remote.name, refspec)
        say(f"Pushed branch {branch} to {remote.name} ({remote.host}).")
        typer.echo(_opened(repository, _request(remote.tool, branch, base, title, file), remote.tool, branch))
        return
    _explain(repository, remote, branch, base, title, file)


def _explain(
    repository: Repository, remote: _Remote | None, branch: str, base: str | None, title: str, file: Path
) -> None:
    """What to type: commands on stdout, the rest on stderr."""
    if remote is None:
        say(f"The repository has no remote, so nothing was pushed. Once it has one, in {repository.root}:")
        typer.echo(shlex.join(("git", "push", "REMOTE", branch)))
    else:
        missing = f"{remote.tool} is not installed" if remote.tool else "no command is known that opens requests there"
        say(f"Nothing was pushed: {missing}. These commands, in {repository.root}, propose the branch:")
        typer.echo(shlex.join(("git", "push", remote.name, branch)))
    if remote is not None and remote.tool is not None:
        command = shlex.join(_request(remote.tool, branch, base, title, None))
        told = (
            f"--body-file {shlex.quote(str(file))}"
            if remote.tool == "gh"
            else f'--description "$(cat {shlex.quote(str(file))})"'
        )
        typer.echo(f"{command} {told}")
        say(f"Or in the browser: {_page(remote, branch)}")
    say(f"The text of the request is in {file}.")


def _opened(repository: Repository, command: list[str], tool: str, branch: str) -> str:
    """The address of the request, as the host's command prints it."""
    try:
        ran = subprocess.run(command, cwd=repository.root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(f"{tool} cannot be started: {error.strerror or error}. Branch {branch} is pushed.") from error
    if ran.returncode:
        said = " ".join(ran.stderr.split()) or f"status {ran.returncode}"
        raise SetupError(f"Branch {branch} is pushed, but {tool} opened no request: {said}")
    return ran.stdout.strip()


def _request(tool: str, branch: str, base: str | None, title: str, file: Path | None) -> list[str]:
    """The command that opens a request; `file` has its text."""
    if tool == "gh":
        target = [] if base is None else ["--base", base]
        text = [] if file is None else ["--body-file", str(file)]
        return ["gh", "pr", "create", "--head", branch, *target, "--title", title, *text]
    target = [] if base is None else ["--target-branch", base]
    text = [] if file is None else ["--description", file.read_text("utf-8")]
    return ["glab", "mr", "create", "--source-branch", branch, *target, "--title", title, "--yes", *text]


def _remote(repository: Repository) -> _Remote | None:
    """The one that the checked out branch follows, else `origin`, else the only one."""
    names = repository.run("remote").split()
    current = _current(repository)
    followed = _configured(repository, f"branch.{current}.remote") if current else None
    chosen = next((name for name in (followed, "origin", names[0] if len(names) == 1 else None) if name in names), None)
    if chosen is None:
        return None
    found = _ADDRESS.fullmatch(_configured(repository, f"remote.{chosen}.url") or "")
    if found is None:
        return _Remote(name=chosen, host=None, project=None, tool=None)
    host = (found[1] or found[2]).lower()
    tool = "gh" if "github" in host else "glab" if "gitlab" in host else None
    return _Remote(name=chosen, host=host, project=found[3], tool=tool)


def _base(repository: Repository, remote: _Remote | None, branch: str) -> str | None:
    """What the request goes into: the checked out branch if the remote has it; None: the host's default."""
    current = _current(repository)
    if remote is None or current is None or current == branch:
        return None
    return current if repository.commit_of(f"refs/remotes/{remote.name}/{current}") is not None else None


def _current(repository: Repository) -> str | None:
    """The branch that is checked out."""
    return repository.run("branch", "--show-current").strip() or None


def _configured(repository: Repository, name: str) -> str | None:
    return repository.run("config", "--get", name).strip() if repository.succeeds("config", "--get", name) else None


def _kept(repository: Repository, branch: str, body: str) -> Path:
    """The file with the text, in git's own folder: no part of the work tree."""
    name = f"hpo/{branch.replace('/', '-')}.md"
    file = repository.root / repository.run("rev-parse", "--git-path", name).rstrip("\n")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror or error}.") from error
    return file


def _page(remote: _Remote, branch: str) -> str:
    if remote.tool == "gh":
        return f"https://{remote.host}/{remote.project}/pull/new/{quote(branch)}"
    query = f"merge_request%5Bsource_branch%5D={quote(branch, safe='')}"
    return f"https://{remote.host}/{remote.project}/-/merge_requests/new?{query}"
