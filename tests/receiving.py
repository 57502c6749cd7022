"""A real HTTP server that keeps what is posted to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self


@dataclass(frozen=True)
class Received:
    """`headers` by their names in lower case."""

    path: str
    headers: dict[str, str]
    content: bytes


class Receiver:
    """Answers with the next of `answers`, then with `status`; with a `location` if there is one."""

    def __init__(self) -> None:
        self.status = 200
        self.answers: list[int] = []
        self.location = ""
        self.got: list[Received] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append(Received(self.path, headers, content))
                self.send_response(outer.answers.pop(0) if outer.answers else outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """One that listens inside the block."""
        receiver = cls()
        thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
