"""The API as a process."""

import errno
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from hpo_service.api.app import create_app
from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.observability.tracing import start_tracing
from hpo_service.storage.database import make_engine
from trainer.common.logs import configure_logs

_STOP_SECONDS = 3
_CONNECTIONS = 10


def run_api(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        SetupError: no database is named, or the address cannot be listened on.
    """
    configure_logs(settings.log_format)
    start_tracing("hpo-api")
    url = settings.require_database_url()
    listener = listen(settings.host, settings.port)
    engine = make_engine(url, application_name="hpo-api", pool_size=_CONNECTIONS)
    app = create_app(settings, engine)
    # No access log: it would keep the tokens of login links. `api.request_log` writes one without queries.
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="info",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    try:
        _Server(config, app).run(sockets=[listener])
    finally:
        listener.close()
        engine.dispose()


class _Server(uvicorn.Server):
    """Lets open event streams end before it waits for requests to finish."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or Ctrl-C."""
        self._app.state.stopping.set()
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises SetupError that names the port and the remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = (
            "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        )
        raise SetupError(
            f"Port {port} on {host} {reason}. Stop that program, or choose another port with --port or HPO_PORT."
        ) from error
    return listener
