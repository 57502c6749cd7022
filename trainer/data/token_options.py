"""Options of everything that trains: where tokenized data are kept and how many processes make them."""

import argparse
import os
from pathlib import Path

from trainer.common.cli_types import positive


def default_cache_dir() -> Path:
    """`hpo/tokens` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpo" / "tokens"


def add_token_options(parser: argparse.ArgumentParser) -> None:
    """Add --token-cache and --tokenize-processes."""
    parser.add_argument(
        "--token-cache",
        type=Path,
        default=default_cache_dir(),
        help="folder of tokenized data, shared by everything that trains on this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--tokenize-processes",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        help="processes that tokenize a large data set together",
    )
