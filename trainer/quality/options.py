"""Options of `python -m trainer check-data`."""

import argparse
import os
from pathlib import Path
from typing import get_args

from trainer.common.cli_types import positive
from trainer.data.token_options import default_cache_dir
from trainer.spec import DataFormat

_MOST_PROCESSES = 8


def add_check_data_options(parser: argparse.ArgumentParser) -> None:
    """FILE or --spec or --task, and what can be said about it."""
    parser.epilog = (
        "Exit status: 0 passed, also with warnings; 3 failed; 4 data, model or thresholds cannot be used; "
        "1 this machine could not run it; 2 wrong usage."
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="training rows: a file or a folder of shards")
    parser.add_argument("--spec", type=Path, metavar="YAML", help="a study or trial: its data and model")
    parser.add_argument(
        "--task",
        metavar="FILE|-",
        help="a CheckData task as JSON; the report is the last line of stdout. From - it is one line, and the check "
        "ends when stdin does: who started it is gone",
    )
    parser.add_argument("--eval", help="evaluation rows; without, they are held out of FILE as training does")
    parser.add_argument("--test", help="test rows, which no search looks at")
    parser.add_argument("--model", metavar="FOLDER", help="base model, whose tokenizer and chat template count")
    parser.add_argument("--format", choices=get_args(DataFormat), help="default: detected from the first row")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="where training cuts rows (default: 512)")
    parser.add_argument("--eval-fraction", type=float, metavar="SHARE", help="rows to hold out (default: 0.05)")
    parser.add_argument("--thresholds", type=Path, metavar="YAML", help="when checks warn or fail")
    parser.add_argument("--json", metavar="PATH|-", help="write the report as JSON")
    parser.add_argument("--markdown", metavar="PATH|-", help="write the report as Markdown")
    parser.add_argument(
        "--scratch",
        type=Path,
        metavar="FOLDER",
        default=default_cache_dir(),
        help="where texts lie while they are compared, about twice the size of the data (default: %(default)s)",
    )
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))
    parser.add_argument("--processes", type=positive, default=processes, help=f"default: {processes}")
