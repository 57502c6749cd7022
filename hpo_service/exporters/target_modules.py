"""The modules that an adapter goes on, as PEFT takes them."""

import re

ALL = "all-linear"
_LINEAR_ONLY = r"\.(?!.*(norm|rotary|act|drop)).*"
_GROUPS = {
    "attention": rf".*\.[^.]*(attn|attention)[^.]*{_LINEAR_ONLY}",
    "mlp": rf".*\.[^.]*(mlp|feed_forward|ffn)[^.]*{_LINEAR_ONLY}",
}


def target_modules(names: str) -> str | list[str]:
    """`all-linear`, a regular expression over full names, or a list of names."""
    return ALL if names == ALL else _GROUPS.get(names) or listed(names) or []


def listed(names: str) -> list[str] | None:
    """The names themselves; None where a group is meant."""
    return None if names == ALL or names in _GROUPS else [name for name in names.split(",") if name]


def expression(names: str) -> str:
    """One text for readers that take a list with a single name for a regular expression."""
    found = target_modules(names)
    if isinstance(found, str):
        return found
    return rf"(.*\.)?({'|'.join(map(re.escape, found))})"


def alpha(value: float) -> int | float:
    """An integer where it is one: what PEFT's type says."""
    return int(value) if value.is_integer() else value
