"""Single values: how they are written beside others in a file, and whether a file says them already."""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from hpo_service.cli.merge.tree import Node

Value = bool | int | float | str | None | Sequence["Value"] | Mapping[str, "Value"]

#: text that every reader takes for a text where no quotes stand around it
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
#: outside of brackets commas are harmless
_PLAIN_IN_BLOCK = re.compile(r"[A-Za-z_/][A-Za-z0-9_./,-]*(?<!,)")
_YES, _NO = ("true", "yes", "on", "y"), ("false", "no", "off", "n")
_NOTHING = ("", "~", "null")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_LEADING_ZERO = re.compile(r"[-+]?0\d")  # octal for some readers


def written(value: Value, *, old: Node | None = None, flow: bool = False, strict_json: bool = False) -> str:
    """`value` as one line of YAML, quoted as `old` is.

    What stood in quotes and was a number or a truth value goes back into quotes: its reader wants a text.
    """
    quote = '"' if strict_json else (old.style if old is not None and old.kind == "scalar" else "")
    if isinstance(value, str):
        return _text(value, quote, flow=flow)
    if isinstance(value, Mapping):
        inner = (
            f"{key_text(key, quoted=strict_json)}: {written(one, flow=True, strict_json=strict_json)}"
            for key, one in value.items()
        )
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(written(one, flow=True, strict_json=strict_json) for one in value) + "]"
    said = _literal(value)
    if value is not None and old is not None and is_quoted_literal(old):
        return f"{old.style}{said}{old.style}"
    return said


def key_text(key: str, *, quoted: bool) -> str:
    """A key of a mapping."""
    return json.dumps(key, ensure_ascii=False) if quoted else _text(key, "", flow=True)


def is_quoted_literal(node: Node) -> bool:
    """Whether a number or a truth value stands in quotes."""
    if node.kind != "scalar" or node.style not in ('"', "'"):
        return False
    return _NUMBER.fullmatch(node.text) is not None or node.text.lower() in ("true", "false")


def says(node: Node, value: Value) -> bool:
    """Whether the file's value is this one already, however it is written: 1e-4 is 0.0001, `yes` is true."""
    if isinstance(value, Mapping):
        keys = [key.text for key, _ in node.pairs]
        return (
            node.kind == "mapping"
            and sorted(keys) == sorted(value)
            and all(says(inner, value[key.text]) for key, inner in node.pairs)
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (
            node.kind == "sequence"
            and len(node.items) == len(value)
            and all(says(item, one) for item, one in zip(node.items, value, strict=True))
        )
    return node.kind == "scalar" and node.tag is None and _says(node, value)


def _says(node: Node, value: bool | float | str | None) -> bool:
    text = node.text
    if value is None:
        return not node.style and text.lower() in _NOTHING
    if isinstance(value, bool):
        return text.lower() in (_YES if value else _NO)
    if isinstance(value, str):
        return text == value and (bool(node.style) or _is_plain(text, flow=False))
    if _NUMBER.fullmatch(text) is None or _LEADING_ZERO.match(text):
        return False
    return float(text) == float(value)


def _literal(value: bool | float | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    digits = format(Decimal(repr(value)), "f")  # YAML 1.1 readers take 2e-04 for a text
    return digits if "." in digits else f"{digits}.0"


def _text(value: str, quote: str, *, flow: bool) -> str:
    if quote == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if quote != '"' and _is_plain(value, flow=flow):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(value: str, *, flow: bool) -> bool:
    pattern = _PLAIN if flow else _PLAIN_IN_BLOCK
    return pattern.fullmatch(value) is not None and value.lower() not in (*_YES, *_NO, *_NOTHING)
