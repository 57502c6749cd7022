"""What a service sends of a delivery, unpacked: whole and as told, or not at all."""

import io
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from hpo_service.cli.artifact_download import require_new, unpack
from hpo_service.core.errors import InvalidRequest, SetupError

CONTENTS = {"config.json": b"{}", "part/model.safetensors": b"weights" * 300_000}
DIGESTS = {name: sha256(content).hexdigest() for name, content in CONTENTS.items()}


def sent(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return stream.getvalue()


def pieces(content: bytes, size: int = 4001) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def test_every_file_is_there(tmp_path: Path) -> None:
    unpack(pieces(sent(CONTENTS)), DIGESTS, tmp_path / "model")
    assert {name: (tmp_path / "model" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sent({**CONTENTS, "config.json": b"[]"}), "config.json: not what the service told"),
        (sent({"config.json": b"{}"}), "part/model.safetensors: not what the service told"),
        (sent({**CONTENTS, "more": b""}), "sent 'more', which it did not tell"),
        (sent(CONTENTS)[:100_000], "was not written"),
        (b"no archive", "was not written"),
    ],
)
def test_anything_else_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=message):
        unpack(pieces(content), DIGESTS, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../config.json", "/tmp/hpo-config.json"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="which it did not tell"):
        unpack(pieces(sent({name: b"{}"})), {name: sha256(b"{}").hexdigest()}, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="exists already; name a new folder"):
        require_new(tmp_path)
    with pytest.raises(InvalidRequest, match="is no folder; make it first"):
        require_new(tmp_path / "a" / "b")
    require_new(tmp_path / "model")
