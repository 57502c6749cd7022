"""A file committed to a branch without touching the work tree, the index or what is checked out. Nothing is pushed."""

import os
import subprocess
import tempfile
from pathlib import Path

from hpo_service.core.errors import InvalidRequest, SetupError

_FILE_MODE = "100644"
_LINK_MODE = "120000"


def read_base(path: Path, branch: str) -> str:
    """The file as the branch has it; of a branch that does not exist yet, as HEAD has it. Raises InvalidRequest."""
    repository = Repository.around(path)
    base = repository.commit_of(f"refs/heads/{branch}") or repository.commit_of("HEAD")
    inside = repository.inside(path)
    if base is None or not repository.succeeds("cat-file", "-e", f"{base}:{inside}"):
        raise InvalidRequest(f"--merge: neither branch {branch} nor HEAD has a file {inside}; commit it first.")
    if repository.mode_of(base, inside) == _LINK_MODE:
        raise InvalidRequest(f"--merge: {inside} is a symbolic link in the repository; name the file that it leads to.")
    content = repository.read("cat-file", "blob", f"{base}:{inside}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"--merge: {inside} is no text in UTF-8 (byte {error.start}).") from error


def commit_file(path: Path, text: str, branch: str, subject: str) -> str | None:
    """Commit `text` as `path` on the branch, which begins at HEAD if it is new; the commit, None if nothing changed.

    Raises:
        InvalidRequest: no repository, no such branch name, or the branch is checked out.
        SetupError: git failed: no identity, a hook, a full disk.
    """
    repository = Repository.around(path)
    reference = f"refs/heads/{branch}"
    if branch.startswith("-") or not repository.succeeds("check-ref-format", reference):
        raise InvalidRequest(f"--git-branch: {branch!r} is no name for a branch.")
    if f"branch {reference}" in repository.run("worktree", "list", "--porcelain").splitlines():
        raise InvalidRequest(
            f"--git-branch: branch {branch} is checked out; name another one, or leave --git-branch out."
        )
    old = repository.commit_of(reference)
    parent = old or repository.commit_of("HEAD")
    tree = repository.tree_with(parent, repository.inside(path), text)
    if parent is not None and tree == repository.run("rev-parse", f"{parent}^{{tree}}").strip():
        return None
    parents = () if parent is None else ("-p", parent)
    commit = repository.run("commit-tree", tree, *parents, "-m", subject).strip()
    repository.run("update-ref", "-m", subject, reference, commit, old or "0" * len(commit))
    return commit


class Repository:
    """The git repository in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def around(cls, path: Path) -> "Repository":
        """The one that holds `path`, whose folder exists."""
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InvalidRequest(f"{folder} is no folder; make it first.")
        finder = cls(folder)
        if not finder.succeeds("rev-parse", "--is-inside-work-tree"):
            raise InvalidRequest(f"--git-branch: {folder} is in no git repository.")
        return cls(Path(finder.run("rev-parse", "--show-toplevel").rstrip("\n")))

    def inside(self, path: Path) -> str:
        """`path` relative to the root."""
        return path.absolute().parent.resolve().joinpath(path.name).relative_to(self.root.resolve()).as_posix()

    def commit_of(self, reference: str) -> str | None:
        """What a reference points at; None if there is none."""
        if not self.succeeds("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}"):
            return None
        return self.run("rev-parse", "--verify", f"{reference}^{{commit}}").strip()

    def mode_of(self, commit: str, name: str) -> str | None:
        """The mode of a file in a commit, such as 100755; None if it is not there."""
        found = self.run("ls-tree", "--full-tree", commit, "--", name).split()
        return found[0] if found else None

    def tree_with(self, parent: str | None, name: str, text: str) -> str:
        """The tree of `parent` with this one file, by an index of its own."""
        blob = self.run("hash-object", "-w", "--stdin", text=text).strip()
        mode = None if parent is None else self.mode_of(parent, name)
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            if parent is not None:
                self.run("read-tree", parent, index=index)
            self.run("update-index", "--add", "--cacheinfo", f"{mode or _FILE_MODE},{blob},{name}", index=index)
            return self.run("write-tree", index=index).strip()

    def succeeds(self, *arguments: str) -> bool:
        """Whether git ends with status 0."""
        return self._git(arguments, None, None).returncode == 0

    def run(self, *arguments: str, text: str | None = None, index: Path | None = None) -> str:
        """What git says. Raises SetupError with what it complains about."""
        return self.read(*arguments, text=text, index=index).decode(errors="replace")

    def read(self, *arguments: str, text: str | None = None, index: Path | None = None) -> bytes:
        """What git says, byte for byte. Raises SetupError with what it complains about."""
        ran = self._git(arguments, text, index)
        if ran.returncode:
            said = ran.stderr.decode(errors="replace").strip().splitlines()
            raise SetupError(f"git {arguments[0]} failed: {said[-1] if said else f'status {ran.returncode}'}.")
        return ran.stdout

    def _git(
        self, arguments: tuple[str, ...], text: str | None, index: Path | None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = dict(os.environ) | ({} if index is None else {"GIT_INDEX_FILE": str(index)})
        command = ["git", "-C", str(self.root), *arguments]
        try:
            return subprocess.run(
                command, input=(text or "").encode(), capture_output=True, env=environment, check=False
            )
        except OSError as error:
            raise SetupError(f"git cannot be started: {error.strerror or error}.") from error
