"""Values that options of several commands take."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
