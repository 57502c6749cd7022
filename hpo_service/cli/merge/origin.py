"""Where merged values come from, as marked comments above them; the next merge replaces these."""

import re
from collections.abc import Sequence

from hpo_service.cli.merge.edits import Piece, line_break, line_start
from hpo_service.cli.merge.tree import Node

_MARK = "# hpo: "
_MARKED = re.compile(r"[ ]*# hpo: [^\r\n]*(?:\r\n|\n|\r|\Z)")


def marked(text: str, key: Node | None, comments: Sequence[str]) -> list[Piece] | None:
    """The pieces that put `comments` above a key, without one at the top of the file; None where none can stand."""
    begin = 1 if text.startswith("\ufeff") else 0
    if key is None:
        return [Piece(begin, _behind(text, begin), _lines(comments, "", line_break(text, begin)))]
    at = line_start(text, key.start)
    indent = text[at : key.start]
    if indent.strip(" "):
        return None
    first = at
    while first > begin and _MARKED.fullmatch(text, before := _line_before(text, first), first):
        first = before
    return [Piece(first, at, _lines(comments, indent, line_break(text, key.start)))]


def _behind(text: str, begin: int) -> int:
    """The end of the marked lines that begin there."""
    while found := _MARKED.match(text, begin):
        if found.end() == begin:
            break
        begin = found.end()
    return begin


def _line_before(text: str, start: int) -> int:
    """Where the line before the one that starts there begins."""
    crlf = text.endswith("\r\n", 0, start)
    return line_start(text, start - (2 if crlf else 1))


def _lines(comments: Sequence[str], indent: str, newline: str) -> str:
    return "".join(f"{indent}{_MARK}{comment}{newline}" for comment in comments)
