"""Command line of `merge` and `quantize`. No torch here."""

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trainer.common.cli_types import positive
from trainer.spec import DataFormat

TYPES = ("f16", "q8_0", "q4_k_m", "q5_k_m", "gptq-w4a16", "awq-w4a16")
_UNITS = {"MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Verb:
    """A verb of `python -m trainer`: its help, its arguments, and the module that does it."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    module: str


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """`python -m trainer merge`."""
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter, in PEFT's format")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: the base's own")
    parser.add_argument("--max-shard-size", type=parse_size, default=parse_size("5GB"), help="default: 5GB")
    parser.add_argument("--eval-data", help="rows to compare perplexity on, before and after")
    _add_judging(parser)


def add_quantize_arguments(parser: argparse.ArgumentParser) -> None:
    """`python -m trainer quantize`."""
    parser.add_argument("--model", required=True, help="folder of a merged model")
    parser.add_argument("--type", choices=TYPES, required=True, help="GGUF: f16 to q5_k_m; the others for vLLM")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make; must not exist")
    parser.add_argument("--eval-data", required=True, help="rows to compare perplexity on, before and after")
    parser.add_argument("--calibration", help="training rows for gptq-w4a16 and awq-w4a16")
    parser.add_argument("--calibration-rows", type=positive, default=256, help="at most so many rows (256)")
    parser.add_argument("--tools-dir", type=Path, help="where converter and environments are kept")
    _add_judging(parser)


def add_deliver_arguments(parser: argparse.ArgumentParser) -> None:
    """`python -m trainer deliver`."""
    parser.add_argument(
        "--task",
        choices=["-"],
        required=True,
        help="a merge or quantize task is one line of JSON on stdin; the work ends when stdin does",
    )
    parser.add_argument("--snapshots", required=True, help="folder or object store (URL) that the model is kept in")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for what is not kept")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="CPU threads")


def parse_size(text: str) -> int:
    """Bytes of a size such as 5GB or 500MB. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,6})(MB|GB)", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 5GB or 500MB")
    return int(match[1]) * _UNITS[match[2]]


def _add_judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--eval-rows", type=positive, default=128, help="at most so many rows (128)")
    parser.add_argument("--format", choices=get_args(DataFormat), default="auto", help="of the rows (by the first one)")
    parser.add_argument("--max-length", type=positive, default=512, help="tokens at which rows are cut (512)")
    parser.add_argument(
        "--compute-dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="what models are judged in; float32 needs 4 bytes of memory a parameter, bfloat16 2",
    )
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="CPU threads")


#: the verbs that deliver a model; each is a function of that name in its module
DELIVERY = {
    "merge": Verb("merge an adapter into its base model", add_merge_arguments, "trainer.export.merge"),
    "deliver": Verb("a step of a delivery, as a worker does it", add_deliver_arguments, "trainer.export.deliver"),
    "quantize": Verb("make a smaller variant of a merged model", add_quantize_arguments, "trainer.export.quantize"),
}
