"""`python -m trainer run FILE.yaml`: train one configuration to its end, as a worker would.

Talk goes to stderr; the last line of stdout is one JSON object. Exit status: 0 done, 1 failed, 2 wrong usage; what
runs as a job ends with 4 where its data and with 5 where its task is at fault, since trying again would not help.
"""

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from trainer.commands.check_paths import add_check_paths_options, check_paths
from trainer.common.cli_types import positive
from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.common.errors import TrainerError
from trainer.common.logs import show_stacks_on_request
from trainer.data.token_options import add_token_options
from trainer.export.arguments import DELIVERY
from trainer.quality.options import add_check_data_options
from trainer.spec import Outcome
from trainer.worker.jobs import REFUSED, REFUSED_TASK

#: exit statuses of what runs as a job where a second try would not help, by verb
_REFUSALS = {
    "check-paths": dict.fromkeys((Outcome.DATA_ERROR, Outcome.USER_ERROR), REFUSED),
    "deliver": {Outcome.DATA_ERROR: REFUSED, Outcome.USER_ERROR: REFUSED_TASK},
}


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print. Returns the exit status."""
    options = _options(arguments)
    show_stacks_on_request()
    os.environ.update(PROCESS_ENVIRONMENT)
    if options.verb == "check-data":
        return int(import_module("trainer.quality.command").main(options))
    try:
        summary = _summary(options)
    except TrainerError as error:
        sys.stderr.write(f"error: {error}\n")
        return _REFUSALS.get(options.verb, {}).get(error.outcome, 1)
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or options.verb}: {error.strerror or error}\n")
        return 1
    except KeyboardInterrupt:
        remedy = "continue with --resume auto" if options.verb == "run" else "nothing was written"
        sys.stderr.write(f"interrupted; {remedy}\n")
        return 130
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def _summary(options: argparse.Namespace) -> dict[str, Any]:
    if options.verb == "check-paths":
        return check_paths(options)
    module = import_module(DELIVERY[options.verb].module if options.verb in DELIVERY else "trainer.commands.run")
    summary: dict[str, Any] = getattr(module, options.verb)(options)
    return summary


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train LoRA configurations.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="train one configuration to its end")
    run.add_argument("file", type=Path, help="a trial or exported best parameters (YAML or JSON)")
    run.add_argument("--model", help="base model folder instead of the file's")
    run.add_argument("--data", help="training rows instead of the file's")
    run.add_argument("--eval-data", help="evaluation rows instead of the file's")
    run.add_argument("--output-dir", type=Path, help="default: runs/<name of FILE>")
    run.add_argument("--resume", choices=["auto"], help="go on from the newest intact snapshot in the output folder")
    run.add_argument("--prices", type=Path, help="what devices cost (YAML or CSV), for the cost of the run")
    run.add_argument(
        "--threads", type=positive, default=len(os.sched_getaffinity(0)), help="CPU threads; ranks share them"
    )
    add_token_options(run)
    add_check_data_options(verbs.add_parser("check-data", help="say what is wrong with data, and whether it matters"))
    add_check_paths_options(verbs.add_parser("check-paths", help="say which paths this machine sees"))
    for verb, delivery in DELIVERY.items():
        delivery.add_arguments(verbs.add_parser(verb, help=delivery.help))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
