"""A line of a log says who it is about, and never a secret."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from trainer.common.logs import LogFormat, bound, format_of, make_formatter, mask_secrets

KEY = "hpo_key_12_" + "aB3-_" * 8 + "xyz"


def line(form: LogFormat, message: str, *arguments: object, **more: Any) -> str:
    record = logging.LogRecord(
        "trainer.worker", logging.WARNING, __file__, 1, message, arguments, more.pop("exc", None)
    )
    for name, value in more.items():
        setattr(record, name, value)
    return make_formatter(form).format(record)


def test_json_lines_carry_what_is_bound() -> None:
    with bound(slice_id=7, attempt=2):
        told = json.loads(line("json", "stopped after %d steps", 3, worker="local-0", unknown="x"))
    time = told.pop("time")
    assert time.endswith("Z")
    assert told == {
        "message": "stopped after 3 steps",
        "level": "warning",
        "logger": "trainer.worker",
        "slice_id": 7,
        "attempt": 2,
        "worker": "local-0",
    }
    assert "slice_id" not in json.loads(line("json", "idle"))


def test_text_lines_carry_what_is_bound() -> None:
    with bound(slice_id=7, attempt=2):
        told = line("text", "stopped")
    assert all(part in told for part in ("stopped", "warning", "slice_id=7", "attempt=2", "trainer.worker"))
    assert "\x1b" not in told


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "postgresql://hpo:pass-w0rd!@db:5432/hpo",
        "postgresql+psycopg2://hpo:p/a:s@db/hpo",
        "Authorization: Bearer abc.def",
        "GET /login?token=abcdef&x=1",
        "AWS_SECRET_ACCESS_KEY=abcdef",
        "RAY_AUTH_TOKEN: abcdef",
        '{"password": "abcdef"}',
    ],
)
def test_secrets_are_masked_wherever_they_stand(form: LogFormat, secret: str) -> None:
    hidden = ("pass-w0rd!", "p/a:s", "abc.def", "abcdef", KEY[12:])
    try:
        raise RuntimeError(f"cannot connect with {secret}")
    except RuntimeError:
        said = line(form, "%s and on", secret, worker=secret, exc=sys.exc_info())
    assert not any(part in said for part in hidden)
    assert "RuntimeError: cannot connect with" in said
    assert "and on" in said


def test_what_is_no_secret_stays() -> None:
    for plain in ("http://127.0.0.1:8080/v1/studies", "300 tokens: 4 rows", "slice 3 attempt 1", "a@b.example"):
        assert mask_secrets(plain) == plain


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_is_logged_looks_like_another_line(form: LogFormat) -> None:
    said = line(form, "study %s", "x\n2026-01-01 [info] forged\x1b[31m\r\x85")
    assert "\n" not in said
    assert not any(control in said for control in "\x1b\r\x85")


def test_the_format_is_named_in_the_environment() -> None:
    assert format_of({"HPO_LOG_FORMAT": "json"}) == "json"
    assert format_of({"HPO_LOG_FORMAT": "xml"}) == format_of({}) == "text"


def test_a_process_that_seems_to_hang_says_where_it_is() -> None:
    program = "import os, signal; from trainer.common.logs import configure_logs; configure_logs('json')\n"
    program += "def seems_to_hang():\n    os.kill(os.getpid(), signal.SIGUSR1)\nseems_to_hang(); print('went on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "went on\n"
    assert "seems_to_hang" in done.stderr
