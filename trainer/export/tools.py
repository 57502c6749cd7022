"""Tools that do not live in this environment: llama.cpp's converter, and environments such as llmcompressor's.

They are made once from a requirements file, in a folder named after the file's digest, by pip as the user has
configured it. A folder counts only with its mark, which is written last.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_path

from trainer.common.errors import TrainerError

CONVERTER_REQUIREMENTS = Path(__file__).with_name("requirements-converter.txt")
LLMCOMPRESSOR_REQUIREMENTS = Path(__file__).with_name("requirements-llmcompressor.txt")
_MARK = "complete"
#: what pip says last is told if it fails, and that is no bar
_QUIET = ("--disable-pip-version-check", "--progress-bar", "off")
_SCRIPT = "convert_hf_to_gguf.py"
_SOURCES = PurePosixPath("vendor/llama.cpp")
_WANTED = (_SCRIPT, "LICENSE", "conversion", "gguf-py")

Run = Callable[[Sequence[str], Path], None]


class ToolError(TrainerError):
    """A tool could not be made ready or failed."""


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command, its output appended to `log`. Raises ToolError with its last line if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        try:
            ran = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                check=False,
            )
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    if ran.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "no output"
        raise ToolError(f"{Path(command[0]).name} ended with status {ran.returncode}: {last} (all of it in {log})")


class Tools:
    """Tools below `folder`, made when they are first asked for; processes that ask at the same time wait."""

    def __init__(self, folder: Path | None = None, run: Run = run_logged) -> None:
        """`folder` defaults to the user's cache; `run` runs pip."""
        self.folder = (folder or user_cache_path("hpo-service") / "tools").absolute()
        self._run = run

    def log(self, name: str) -> Path:
        """The log of this process for a tool."""
        return self.folder / "logs" / f"{name}-{os.getpid()}.log"

    def converter(self) -> Path:
        """llama.cpp's `convert_hf_to_gguf.py`, from the source distribution of llama-cpp-python.

        Raises:
            ToolError: pip cannot fetch it, or it is not the file whose digest is pinned.
        """
        return self._made("converter", CONVERTER_REQUIREMENTS, self._make_converter) / _SCRIPT

    def llmcompressor_python(self) -> Path:
        """The interpreter of an environment that has llmcompressor. Raises ToolError."""
        return self.environment("llmcompressor", LLMCOMPRESSOR_REQUIREMENTS)

    def environment(self, name: str, requirements: Path) -> Path:
        """The interpreter of an environment that has what the file names. Raises ToolError."""

        def make(folder: Path) -> None:
            self._run([sys.executable, "-m", "venv", str(folder)], self.log(name))
            self._run(install_command(folder, requirements), self.log(name))

        return self._made(name, requirements, make) / "bin" / "python"

    def _made(self, name: str, requirements: Path, make: Callable[[Path], None]) -> Path:
        identity = requirements.read_bytes() + sys.version.encode()
        folder = self.folder / f"{name}-{hashlib.sha256(identity).hexdigest()[:16]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_suffix(".lock")):
                if not (folder / _MARK).is_file():
                    shutil.rmtree(folder, ignore_errors=True)
                    sys.stderr.write(f"making {folder}, once; see {self.log(name)}\n")
                    make(folder)
                    (folder / _MARK).touch()
        except OSError as error:
            raise ToolError(
                f"the tools folder {self.folder} cannot be used: {error.strerror or error}; name another one with "
                "--tools-dir, or another cache with XDG_CACHE_HOME"
            ) from error
        return folder

    def _make_converter(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as downloads:
            self._run(converter_command(Path(downloads)), self.log("converter"))
            extract_converter(next(Path(downloads).glob("*.tar.gz")), folder)


def converter_command(downloads: Path) -> list[str]:
    """pip, fetching the pinned source distribution and checking its digest. It reads its metadata, no more."""
    return [
        *(sys.executable, "-m", "pip", "download", *_QUIET),
        *("--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"),
        *("--requirement", str(CONVERTER_REQUIREMENTS), "--dest", str(downloads)),
    ]


def install_command(folder: Path, requirements: Path) -> list[str]:
    """pip of the environment in `folder`, installing from the index that the user has configured."""
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", *_QUIET)
    return [*pip, "--requirement", str(requirements)]


def extract_converter(archive: Path, folder: Path) -> None:
    """Extract the converter and its libraries, no more, into `folder`. Raises ToolError if they are not in there."""
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if inner.is_relative_to(_SOURCES) and inner.relative_to(_SOURCES).parts[:1] and member.isfile():
                name = inner.relative_to(_SOURCES)
                if name.parts[0] in _WANTED:
                    tar.extract(member.replace(name=str(name)), folder, filter="data")
    if not (folder / _SCRIPT).is_file():
        raise ToolError(f"{archive.name} holds no {_SOURCES / _SCRIPT}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
