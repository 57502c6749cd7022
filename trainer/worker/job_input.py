"""What a job is told: one line of JSON on stdin, which then stays open for as long as whoever asked is there."""

import os


def first_line(descriptor: int) -> bytes:
    """Up to the first line end, without a buffer that would keep what follows."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def wait_for_the_end(descriptor: int) -> None:
    """Return once nobody holds the other end any more."""
    while os.read(descriptor, 4096):
        pass
