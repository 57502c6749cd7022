"""One example as it stands in the data, before it is tokenized."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.common.errors import DataError
from trainer.spec import Outcome

#: version of the texts that `Row.prompt` builds; part of the fingerprint of tokenized data
TEMPLATE = "alpaca-1"

Role = Literal["system", "user", "assistant", "tool"]
FormatName = Literal["alpaca", "prompt_completion", "chat", "sharegpt", "text"]

#: what is wrong with a path, or with who may read it; any other number is the machine's: a disk, a mount, a limit
_ABOUT_THE_PATH = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
        *(errno.EACCES, errno.EPERM),
    }
)


class RowError(DataError):
    """Data are unusable; `line_number` starts at 1 and is 0 if the file or folder as a whole is meant."""

    def __init__(self, path: str | Path, line_number: int, problem: str) -> None:
        self.path = str(path)
        self.line_number = line_number
        self.problem = problem
        where = f"{self.path}, line {line_number}" if line_number else self.path
        super().__init__(f"{where}: {problem}")


class UnreadableError(RowError):
    """The machine fails where the data lie: another one, or a later time, may read them."""

    outcome = Outcome.INFRA_ERROR


def unreadable(path: str | Path, error: Exception) -> RowError:
    """What stopped the reading of a file or folder. Damaged files come without an error number."""
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    number = getattr(error, "errno", None)
    kind = RowError if number is None or number in _ABOUT_THE_PATH else UnreadableError
    return kind(path, 0, f"cannot be read: {reason}")


class Message(NamedTuple):
    """What one side says."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One example. `line_number` is the 1-based line, in Parquet the 1-based row.

    `messages` of an alpaca row are the instruction, the input unless it is empty (both `user`) and the output; those
    of a text row are the text alone, said by the assistant.
    """

    file: str
    line_number: int
    format: FormatName
    messages: tuple[Message, ...]

    @property
    def is_chat(self) -> bool:
        """Whether the model's chat template renders this row."""
        return self.format in ("chat", "sharegpt")

    def prompt(self) -> str:
        """The text that is not learned; for alpaca in its template, without the section of an empty input."""
        asked = [message.content for message in self.messages if message.role != "assistant"]
        if self.format != "alpaca":
            return "\n".join(asked)
        middle = f"### Input:\n{asked[1]}\n\n" if len(asked) > 1 else ""
        return f"### Instruction:\n{asked[0]}\n\n{middle}### Response:\n"

    def response(self) -> str:
        """What the assistant says, its turns one a line."""
        return "\n".join(message.content for message in self.messages if message.role == "assistant")
