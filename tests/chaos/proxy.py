"""A TCP proxy between the service and PostgreSQL that holds back, drops or cuts what passes, when it is told to."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Literal

Mode = Literal["pass", "hold", "drop_replies", "cut"]
_CHUNK_BYTES = 65536


class Route:
    """One listener. `hold`: nothing passes in either direction until it may; `drop_replies`: answers vanish and the
    connection ends, so that nobody knows whether a commit was done; `cut`: every connection ends now."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._drops = False
        self._writers: set[asyncio.StreamWriter] = set()

    def become(self, mode: Mode) -> None:
        """Change what happens to what passes."""
        self._drops = mode == "drop_replies"
        if mode == "hold":
            self._open.clear()
        else:
            self._open.set()
        if mode == "cut":
            for writer in list(self._writers):
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        await self._open.wait()
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, server_writer}
        self._writers |= ends
        ways = (self._copy(reader, server_writer, replies=False), self._copy(server_reader, writer, replies=True))
        copies = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        self._writers -= ends
        for end in ends:
            end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._open.wait()
            if replies and self._drops:
                return
            writer.write(data)
            await writer.drain()


class Proxy:
    """What the harness knows of it: a socket for each route and the pipe on which its process is told."""

    def __init__(self, target: str, routes: int) -> None:
        self._target = target
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(routes)]
        self._hears, self._tells = os.pipe()

    @property
    def ports(self) -> list[int]:
        """Of the routes."""
        return [int(listener.getsockname()[1]) for listener in self.listeners]

    def become(self, route: int, mode: Mode) -> None:
        """Tell the process."""
        os.write(self._tells, f"{route} {mode}\n".encode())

    def process(self) -> Callable[[], None]:
        """What its process does."""
        return lambda: asyncio.run(self._run())

    async def _run(self) -> None:
        routes = [Route(self._target) for _ in self.listeners]
        for route, listener in zip(routes, self.listeners, strict=True):
            await asyncio.start_server(route.serve, sock=listener)
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(self._hears, "rb"))
        while line := await orders.readline():
            number, mode = line.decode().split()
            routes[int(number)].become(mode)  # type: ignore[arg-type]
