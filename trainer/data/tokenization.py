"""Turning all parts of a data set into token shards, in this process or in several.

Which rows go into which shard, and so every byte of them, does not depend on the number of processes. Further
processes are started anew (`python -m trainer.data.tokenization`), never forked: threads of torch would not survive
that.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.common.errors import TrainerError, UserError
from trainer.data.row_encoding import Encoder, EncoderSettings
from trainer.data.rows import FormatName, Part, Row, RowError, RowReader, UnreadableError, lines_before, scan_part
from trainer.data.shards import ShardSize, write_shard

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizationError(TrainerError):
    """A process that tokenizes ended unexpectedly."""


@dataclass(frozen=True)
class Tokenization:
    """What is to be done: all `parts`, in the order of their rows, with the tokenizer in `model_path`."""

    model_path: str
    format: FormatName
    settings: EncoderSettings
    parts: tuple[Part, ...]


def shard_name(number: int) -> str:
    """File name of a shard; names sort in the order of the rows."""
    return f"shard-{number:06d}.arrow"


def tokenize_here(tasks: Tokenization, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> list[ShardSize]:
    """Write one shard for each part. Raises RowError, UserError."""
    return [
        _tokenize_part(part, tasks.format, Encoder(tokenizer, tasks.settings), folder / shard_name(number))
        for number, part in enumerate(tasks.parts)
    ]


def tokenize_in_processes(tasks: Tokenization, folder: Path, processes: int) -> list[ShardSize]:
    """Write one shard for each part with up to `processes` processes.

    Raises:
        RowError: the first bad row in the order of the data, as a single process would say.
        UserError: the tokenizer does not fit the data.
        TokenizationError: a process died.
    """
    todo = deque(enumerate(tasks.parts))
    sizes: dict[int, ShardSize] = {}
    problems: dict[int, TrainerError] = {}

    def drive(_: int) -> None:
        with _Child(tasks, folder) as child:
            # Parts are taken in order, so when one fails every earlier one is done or under way.
            while todo and not problems:
                try:
                    number, part = todo.popleft()
                except IndexError:
                    return
                try:
                    sizes[number] = child.tokenize(number, part)
                except TrainerError as error:
                    problems[number] = error

    workers = min(processes, len(tasks.parts))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(drive, range(workers)))
    if problems:
        raise problems[min(problems)]
    return [sizes[number] for number in range(len(tasks.parts))]


def main() -> None:
    """The child: settings and then parts in on stdin, one JSON object a line; an answer to each part on stdout."""
    os.environ.update(PROCESS_ENVIRONMENT)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parts: deque[dict[str, Any]] = deque()
    arrived = threading.Semaphore(0)
    tasks = json.loads(sys.stdin.readline())
    threading.Thread(target=_receive, args=(parts, arrived), daemon=True).start()
    encoder = None
    while arrived.acquire():
        task = parts.popleft()
        try:
            if encoder is None:
                encoder = _make_encoder(tasks)
            size = _tokenize_part(Part(**task["part"]), tasks["format"], encoder, Path(task["target"]))
            answer: dict[str, Any] = asdict(size)
        except RowError as error:
            answer = {"row_error": [error.path, error.line_number, error.problem]}
            answer["unreadable"] = isinstance(error, UnreadableError)
        except UserError as error:
            answer = {"user_error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _make_encoder(tasks: dict[str, Any]) -> Encoder:
    from trainer.data.tokenizer import load_tokenizer

    return Encoder(load_tokenizer(tasks["model_path"]), EncoderSettings(**tasks["settings"]))


def _receive(parts: deque[dict[str, Any]], arrived: threading.Semaphore) -> NoReturn:
    """Queue what comes; at the end of stdin, which is also the parent's death, this process ends at once."""
    for line in sys.stdin:
        parts.append(json.loads(line))
        arrived.release()
    os._exit(0)


def _tokenize_part(part: Part, data_format: FormatName, encoder: Encoder, target: Path) -> ShardSize:
    try:
        return write_shard(target, encoder.encode(_rows(part, data_format)))
    except RowError as error:
        if not part.start or not error.line_number or error.path.endswith(".parquet"):
            raise
        raise RowError(error.path, error.line_number + lines_before(part), error.problem) from error


def _rows(part: Part, data_format: FormatName) -> Iterator[Row | RowError]:
    return scan_part(part, RowReader(data_format))


class _Child:
    """A process that tokenizes one part after another; it ends with the block."""

    def __init__(self, tasks: Tokenization, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.data.tokenization"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, **PROCESS_ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        )
        self._send({"model_path": tasks.model_path, "format": tasks.format, "settings": asdict(tasks.settings)})

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tokenize(self, number: int, part: Part) -> ShardSize:
        """Raises RowError, UserError or TokenizationError."""
        self._send({"part": asdict(part), "target": str(self._folder / shard_name(number))})
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise TokenizationError(f"the process that tokenizes {part.file} ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "row_error" in answer:
            raise (UnreadableError if answer["unreadable"] else RowError)(*answer["row_error"])
        if "user_error" in answer:
            raise UserError(answer["user_error"])
        return ShardSize(**answer)

    def _send(self, message: dict[str, Any]) -> None:
        if self._process.stdin is None:
            raise TokenizationError("the process that tokenizes takes no orders")
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its answer, or that there is none, says why


if __name__ == "__main__":
    main()
