"""What somebody who means harm writes and puts into files. Tests send it everywhere where text and files enter."""

import gzip
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: what can be kept and shown as the text that it is
TEXTS: dict[str, str] = {
    "html": "</title></script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "attribute": "\" autofocus onfocus=alert(1) x='",
    "sql": "'); DROP TABLE hpo.studies; --",
    "shell": "$(touch pwned) `touch pwned`; touch pwned | cat & #",
    "jinja": "{{ 7 * 191 }}{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "formats": "%s%n %(name)s {0.__class__} ${jndi:ldap://x/a}",
    "yaml": "a: &a [*a]\n- !!python/object/apply:os.system ['touch pwned']\n---\n# x",
    "formula": '=HYPERLINK("http://x.invalid","a")',
    "formula of a command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "header": "a\r\nSet-Cookie: hpo_session=x\r\n\r\n<html>",
    "log line": 'a\n{"level": "info", "message": "forged"}',
    "markdown": "[a](javascript:alert(1)) ![b](http://x.invalid/c) | `d` \n# e",
    "traversal": "../../../../etc/passwd",
    "traversal, encoded": "..%2f..%252f..%252e%252e%255cetc/passwd",
    "bidi": "first\u202egnp.exe\u2066\u2069",
    "zero width": "fi\u200brst\ufeff\u00ad",
    "lookalike": "\ufb01rst ｆｉｒｓｔ",
    "separators": "a\u2028b\u2029c",
    "combining": "a" + "\u0301" * 100,
    "beyond the plane": "\U0001f468\u200d\U0001f4bb\U000e0001\U0010fffe",
    "long": "x" * 250,
}
#: what PostgreSQL cannot keep, or a terminal obeys
UNUSABLE: dict[str, str] = {
    "NUL": "a\x00b",
    "escape sequence": "\x1b]0;pwned\x07\x1b[2J",
    "C1 escape sequence": "\x9b31m",
    "half a surrogate pair": "a\ud800",
    "delete": "a\x7fb",
}
#: numbers as JSON writes them
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "9" * 5000,
    "-1",
    "1e-400",
    "9223372036854775808",
    "1e308",
)
PATHS = (
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..\\..\\etc\\passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "file:///etc/passwd",
    "~root/.ssh/id_rsa",
    "model/../../../../../../etc/passwd",
    "s3://bucket/key",
    "x" * 5000,
    "a/" * 2000,
)
#: addresses that lead a webhook back to this machine, or into its network
LOCAL_URLS = (
    "https://127.0.0.1:{port}/",
    "https://127.1:{port}/",
    "https://2130706433:{port}/",
    "https://0x7f000001:{port}/",
    "https://0177.0.0.1:{port}/",
    "https://0:{port}/",
    "https://localhost:{port}/",
    "https://user:word@127.0.0.1:{port}/",
    "https://[::1]:{port}/",
    "https://[::]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::ffff:7f00:1]:{port}/",
    "https://[64:ff9b::7f00:1]:{port}/",
    "https://[2002:7f00:1::]:{port}/",
    "https://[fe80::1%25lo]:{port}/",
    "https://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "https://[fd00::1]/",
    "https://①②⑦.⓪.⓪.①:{port}/",
    "http://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file:///etc/passwd",
)


def nested(opening: str, closing: str, levels: int = 100_000) -> str:
    """JSON or YAML deeper than any parser's stack."""
    return opening * levels + closing * levels


def laughs(levels: int = 9) -> str:
    """YAML of a kilobyte that stands for a billion values."""
    lines = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels + 1)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *lines])


def merges(levels: int = 9) -> str:
    """The same with merge keys, which are written out while YAML is read."""
    lines = [f"a{level}: &a{level}\n  <<: [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels + 1)]
    return "\n".join(["a0: &a0 {x: 1}", *lines])


class _Harm:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self._path),)


def pickle_that_makes(folder: Path) -> bytes:
    """A pickle that makes `folder` when it is loaded."""
    return pickle.dumps(_Harm(folder))


def torch_file_that_makes(file: Path, folder: Path) -> None:
    """The same as `torch.save` writes it."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_that_makes(folder))
        archive.writestr("archive/version", "3\n")


def safetensors(header: str, length: int | None = None) -> bytes:
    """A file with this header and no data; `length` is what it says of the header's."""
    content = header.encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


def module_that_makes(folder: Path) -> str:
    """Python that makes `folder` when it is imported."""
    return f"import os\nos.mkdir({str(folder)!r})\nclass Evil: pass\n"


def gzip_bomb(piece: bytes, unpacked_bytes: int) -> bytes:
    """A small file of much."""
    return gzip.compress(piece * (unpacked_bytes // len(piece)), compresslevel=1)


def damaged_gzip() -> bytes:
    """Neither cut nor without a header: wrong inside."""
    content = bytearray(gzip.compress(b"".join(json.dumps({"text": str(n)}).encode() + b"\n" for n in range(500))))
    content[60:70] = b"\xff" * 10
    return bytes(content)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """A Parquet file in which what repeats takes no place."""
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
