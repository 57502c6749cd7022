"""Guess which known word was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the closest known word, empty if none is close. Starts with a space, to be appended."""
    close = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown_key(word: str, known: Iterable[str]) -> str:
    """The sentence about a key that does not exist here."""
    names = sorted(known)
    return f"Unknown key {word!r}.{did_you_mean(word, names)} Known here: {', '.join(names)}."
