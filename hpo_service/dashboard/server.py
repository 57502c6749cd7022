"""optuna-dashboard as a process of its own, on a Unix socket, over a database connection that cannot write.

It has no authentication and loads whole studies, so it is reached through the service's guarded routes only.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvicorn
from a2wsgi import WSGIMiddleware
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna_dashboard import wsgi

from hpo_service.core.child_process import end_with_parent
from hpo_service.dashboard.process import URL_VARIABLE
from hpo_service.storage.database import optuna_url, read_only
from trainer.common.logs import configure_logs, format_of

_NICE = 5
_CONNECTIONS = 4
_THREADS = 8


def open_storage(url: str) -> BaseStorage:
    """Optuna's tables, for reading. Whatever role the URL names, its transactions are read-only."""
    storage = RDBStorage(
        read_only(optuna_url(url)),
        engine_kwargs={"pool_size": _CONNECTIONS, "pool_pre_ping": True, "hide_parameters": True},
        skip_table_creation=True,
        skip_compatibility_check=True,
    )
    return _CachedStorage(storage)


def main() -> None:
    """Serve until standard input, a pipe from the parent, ends."""
    parser = argparse.ArgumentParser(prog="hpo_service.dashboard.server")
    parser.add_argument("--socket", required=True, help="path of the Unix socket to listen on")
    path = parser.parse_args().socket
    end_with_parent()
    os.nice(_NICE)
    configure_logs(format_of(), logging.WARNING)
    url = os.environ.pop(URL_VARIABLE)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o077)
    listener.bind(path)
    app = WSGIMiddleware(wsgi(open_storage(url)), workers=_THREADS)
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        Path(path).unlink(missing_ok=True)
        with suppress(OSError):
            Path(path).parent.rmdir()


if __name__ == "__main__":
    main()
