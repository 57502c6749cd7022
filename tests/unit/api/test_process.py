"""Where the API listens."""

import socket

import pytest

from hpo_service.api.process import listen
from hpo_service.core.errors import SetupError


def test_a_taken_port_is_told_with_its_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"Port {port} .*taken.*HPO_PORT"):
            listen("127.0.0.1", port)
    with pytest.raises(SetupError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", port)
