"""Pieces of a text to replace, and why a value may have no place where it could go safely."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hpo_service.cli.merge.tree import Node

_REST_OF_LINE = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=\r|\n|\Z)")
_COLON = re.compile(r"\s*:")
_BREAK = re.compile(r"\r\n|\n|\r")


class Unsafe(Exception):
    """The value has no safe place. The message completes "not written: ..."; `line` counts from 1.

    `overruled`: whether something else in the file decides in its place, or may, whatever stands there.
    """

    def __init__(self, reason: str, line: int | None = None, *, overruled: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.overruled = overruled


@dataclass(frozen=True)
class Piece:
    """`text` for what stands from `start` to `end`."""

    start: int
    end: int
    text: str


def apply(text: str, pieces: Iterable[Piece]) -> str:
    """The text with all pieces replaced; they do not overlap."""
    for piece in sorted(pieces, key=lambda one: one.start, reverse=True):
        text = text[: piece.start] + piece.text + text[piece.end :]
    return text


def line_of(text: str, offset: int) -> int:
    """The line that an offset is in, from 1."""
    return len(_BREAK.findall(text, 0, offset)) + 1


def line_start(text: str, offset: int) -> int:
    """Where the line of an offset begins, after a byte order mark."""
    begins = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    return begins + 1 if begins == 0 and text.startswith("\ufeff") else begins


def line_break(text: str, offset: int) -> str:
    """How the line of an offset ends; of the last one, as the first."""
    found = _BREAK.search(text, offset) or _BREAK.search(text)
    return "\n" if found is None else found[0]


def after_colon(text: str, key: Node) -> int:
    """Where the value of a key may begin. Raises Unsafe for a key without a colon."""
    found = _COLON.match(text, key.end)
    if found is None:
        raise Unsafe("its key has no colon", key.line + 1)
    return found.end()


def end_of_line(text: str, offset: int) -> int | None:
    """Where the line ends if nothing but a comment follows; else None."""
    found = _REST_OF_LINE.match(text, offset)
    return None if found is None else found.end()


def content_end(text: str, key: Node | None, node: Node) -> int | None:
    """Where the last thing of a value ends; None where that is not known. `key` is its key in a mapping."""
    if node.empty:
        return None if key is None else after_colon(text, key)
    if node.kind in ("scalar", "alias") or node.flow:
        return node.end
    if node.kind == "mapping":
        return content_end(text, *node.pairs[-1]) if node.pairs else None
    return content_end(text, None, node.items[-1]) if node.items else None
