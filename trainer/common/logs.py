"""Logs of every process: a line an event, as text or as JSON, with the ids that are bound to it. Secrets are masked."""

import faulthandler
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

from structlog import dev, processors, stdlib
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.types import EventDict, Processor, WrappedLogger

LogFormat = Literal["text", "json"]

#: how a process is told the format; a worker hears it from whoever starts it
FORMAT_VARIABLE = "HPO_LOG_FORMAT"
#: what a line may say beside its sentence (`extra=` of the logging functions); everything else is left out
FIELDS = (
    "request_id",
    "method",
    "path",
    "status",
    "seconds",
    "key_id",
    "study_id",
    "trial_number",
    "slice_id",
    "attempt",
    "job_id",
    "worker",
    "node",
    "outcome",
    "cause",
    "state",
    "epoch",
)
_MASK = "***"
_STDERR = 2  #: whatever a test or a notebook made of `sys.stderr`
_SECRETS = (
    (re.compile(r"(hpo_[a-z]+_\d+_)[A-Za-z0-9_-]{20,}"), rf"\1{_MASK}"),
    (re.compile(r"(://[^:/@\s]*:)[^@\s]+(@)"), rf"\1{_MASK}\2"),
    (re.compile(r"(?i)(bearer\s+)\S+"), rf"\1{_MASK}"),
    (
        re.compile(r"(?i)\b((?:[a-z0-9_]*_)?(?:password|secret|token|secret_access_key)\"?'?\s*[=:]\s*)[^\s,;&]+"),
        rf"\1{_MASK}",
    ),
)
#: marks that are not seen, but turn the direction of text around them or make two texts look alike
_UNSEEN = (
    0xAD,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xE0000, 0xE0080),
)
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029, *_UNSEEN) if code not in (9, 10)
}


def configure_logs(form: LogFormat, level: int = logging.INFO) -> None:
    """Write everything that is logged in this process to stderr; nothing changes where logging is set up already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(form))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(capture=True)
    show_stacks_on_request()


def show_stacks_on_request() -> None:
    """Let SIGUSR1 write what every thread is doing to stderr, for a process that seems to hang; it goes on after it."""
    faulthandler.register(signal.SIGUSR1, file=_STDERR, all_threads=True)


def format_of(environment: Mapping[str, str] = os.environ) -> LogFormat:
    """The format that `HPO_LOG_FORMAT` asks for; text where it is not set or says something else."""
    return "json" if environment.get(FORMAT_VARIABLE) == "json" else "text"


def bound(**fields: str | int) -> AbstractContextManager[None]:
    """Every line that this thread (or task) logs in the block carries these fields."""
    return bound_contextvars(**fields)


def make_formatter(form: LogFormat) -> logging.Formatter:
    """Renders records of the standard library's loggers."""
    rendered: list[Processor] = [stdlib.ProcessorFormatter.remove_processors_meta, processors.format_exc_info, _safe]
    if form == "json":
        rendered += [processors.EventRenamer("message"), processors.JSONRenderer(ensure_ascii=False)]
    else:
        rendered += [
            dev.ConsoleRenderer(
                colors=False, pad_event_to=0, timestamp_key="time", exception_formatter=dev.plain_traceback
            )
        ]
    return stdlib.ProcessorFormatter(
        processors=rendered,
        foreign_pre_chain=[
            merge_contextvars,
            stdlib.add_log_level,
            stdlib.add_logger_name,
            stdlib.ExtraAdder(allow=FIELDS),
            processors.TimeStamper(fmt="iso", utc=True, key="time"),
        ],
    )


def mask_secrets(text: str) -> str:
    """`text` without keys of ours, passwords in URLs, bearer tokens and what is assigned to a secret's name."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def harmless(text: str) -> str:
    """`text` with nothing that could steer a terminal; its lines stay lines."""
    return text.translate(_CONTROL)


def one_line(text: str) -> str:
    """`text` without secrets, and with nothing that could pass for another line or steer a terminal."""
    return harmless(mask_secrets(text)).replace("\n", "\\n")


def _safe(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """No secret, and no text of a user that could pass for another line or steer a terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = harmless(mask_secrets(value)) if name == "exception" else one_line(value)
    return event
