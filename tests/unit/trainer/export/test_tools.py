"""Tools outside our environment: made once, whole or not at all, from pinned files, by pip as it is configured."""

import io
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from trainer.export.tools import (
    CONVERTER_REQUIREMENTS,
    LLMCOMPRESSOR_REQUIREMENTS,
    ToolError,
    Tools,
    converter_command,
    extract_converter,
    run_logged,
)

ROOT = "llama_cpp_python-0.3.36"
INSIDE = f"{ROOT}/vendor/llama.cpp"


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


class FakePip:
    """Leaves a source distribution where pip would; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.commands: list[list[str]] = []
        self.failures = failures

    def __call__(self, command: Sequence[str], log: Path) -> None:
        self.commands.append(list(command))
        if self.failures:
            self.failures -= 1
            raise ToolError("no network")
        if "download" in command:
            downloads = Path(command[command.index("--dest") + 1])
            archive(downloads / f"{ROOT}.tar.gz", f"{INSIDE}/convert_hf_to_gguf.py", f"{INSIDE}/gguf-py/gguf/a.py")
        elif command[1:3] == ["-m", "venv"]:
            Path(command[3], "bin").mkdir(parents=True)
            Path(command[3], "bin", "python").touch()


def test_the_converter_is_fetched_once(tmp_path: Path) -> None:
    pip = FakePip()
    script = Tools(tmp_path / "tools", pip).converter()
    assert script.is_file()
    assert (script.parent / "gguf-py" / "gguf" / "a.py").is_file()
    assert Tools(tmp_path / "tools", pip).converter() == script
    assert len(pip.commands) == 1
    assert not list((tmp_path / "tools").glob("tmp*"))


def test_the_environment_is_made_once_and_pip_takes_its_usual_index(tmp_path: Path) -> None:
    pip = FakePip()
    python = Tools(tmp_path, pip).llmcompressor_python()
    assert Tools(tmp_path, pip).llmcompressor_python() == python
    assert pip.commands[0] == [sys.executable, "-m", "venv", str(python.parents[1])]
    assert pip.commands[1][:4] == [str(python), "-m", "pip", "install"]
    assert len(pip.commands) == 2
    words = [word for command in [*pip.commands, converter_command(tmp_path)] for word in command]
    assert not [word for word in words if "index" in word or "://" in word]
    assert words.count("--progress-bar") == words.count("off") == 2  # a bar is no reason why it failed


def test_what_was_left_half_made_is_made_again(tmp_path: Path) -> None:
    pip = FakePip(failures=1)
    with pytest.raises(ToolError, match="no network"):
        Tools(tmp_path, pip).llmcompressor_python()
    assert Tools(tmp_path, pip).llmcompressor_python().is_file()


def test_other_requirements_are_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = FakePip()
    first = Tools(tmp_path, pip).llmcompressor_python()
    other = tmp_path / "requirements.txt"
    other.write_bytes(LLMCOMPRESSOR_REQUIREMENTS.read_bytes() + b"x==1\n")
    monkeypatch.setattr("trainer.export.tools.LLMCOMPRESSOR_REQUIREMENTS", other)
    assert Tools(tmp_path, pip).llmcompressor_python() != first


def test_only_the_converter_is_extracted_and_never_outside(tmp_path: Path) -> None:
    wanted = f"{INSIDE}/convert_hf_to_gguf.py", f"{INSIDE}/conversion/llama.py", f"{INSIDE}/LICENSE"
    others = f"{INSIDE}/src/llama.cpp", f"{ROOT}/setup.py", f"{ROOT}/other/convert_hf_to_gguf.py"
    target = tmp_path / "target"
    extract_converter(archive(tmp_path / "a.tar.gz", *wanted, *others), target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == {"convert_hf_to_gguf.py", "conversion/llama.py", "LICENSE"}
    with pytest.raises(tarfile.OutsideDestinationError):
        extract_converter(archive(tmp_path / "b.tar.gz", wanted[0], f"{INSIDE}/conversion/../../evil.py"), target)
    assert not (tmp_path / "evil.py").exists()
    with pytest.raises(ToolError, match="holds no vendor"):
        extract_converter(archive(tmp_path / "c.tar.gz", *others), tmp_path / "empty")


def test_requirements_are_pinned() -> None:
    converter, llmcompressor = (
        [line for line in file.read_text().splitlines() if not line.startswith("#")]
        for file in (CONVERTER_REQUIREMENTS, LLMCOMPRESSOR_REQUIREMENTS)
    )
    assert len(converter) == 1
    assert re.fullmatch(r"llama-cpp-python==[\d.]+ --hash=sha256:[0-9a-f]{64}", converter[0])
    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", line) for line in llmcompressor)
    assert {line.split("==")[0] for line in llmcompressor} >= {"llmcompressor", "transformers", "torch"}


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    run_logged([sys.executable, "-c", "print('fine')"], log)
    with pytest.raises(ToolError, match=r"ended with status 3: the reason \(all of it in .*x\.log\)"):
        run_logged([sys.executable, "-c", "print('noise\\nthe reason'); raise SystemExit(3)"], log)
    assert log.read_text().startswith("fine\n")
    with pytest.raises(ToolError, match="/nowhere/python cannot be started: No such file"):
        run_logged(["/nowhere/python"], log)
