"""Keys of private random streams: every draw of a trial is a pure function of what it is for."""

from hashlib import blake2b


def stream_key(*parts: int | str) -> int:
    """A 63-bit seed for the stream named by `parts`, equal on every machine and in every process."""
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
