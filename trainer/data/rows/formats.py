"""From the JSON object of a row to its messages, in five formats; the first row says which one it is."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from trainer.data.rows.other_kinds import other_message, other_row
from trainer.data.rows.row import FormatName, Message, Role, Row, RowError
from trainer.spec.trial import DataFormat

#: columns that any format reads; others are never loaded from Parquet
COLUMNS = ("instruction", "input", "output", "prompt", "completion", "messages", "conversations", "text")

_SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
_MAY_FOLLOW: dict[Role | None, tuple[Role, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
_KNOWN = "instruction + output, prompt + completion, messages, conversations or text"


class _Problem(Exception):
    """What is wrong with a row, without where it stands."""


class RowReader:
    """Turns the values of one file, or of one folder's shards, into rows of one format."""

    def __init__(self, data_format: DataFormat = "auto") -> None:
        self.format: FormatName | None = None if data_format == "auto" else data_format

    def read(self, value: object, file: str, line_number: int) -> Row:
        """The row that `value` (from JSON or Parquet) describes. Raises RowError."""
        try:
            if not isinstance(value, dict):
                raise _Problem(f"a row is a JSON object, this is a {type(value).__name__}")
            if self.format is None:
                self.format = detect_format(value)
            return Row(file, line_number, self.format, _PARSERS[self.format](value))
        except _Problem as problem:
            other = other_row(value)
            said = str(problem) if other is None else f"a row is a JSON object with one answer, this is {other}"
            raise RowError(file, line_number, said) from None


def detect_format(value: Mapping[str, Any]) -> FormatName:
    """The format of a row by its keys; the more specific one wins where several fit."""
    for key, name in _DETECTED_BY:
        if value.get(key) is not None:
            return name
    keys = ", ".join(f"`{key}`" for key in list(value)[:8]) or "none"
    raise _Problem(f"no known format: its keys are {keys[:300]}, but a row has {_KNOWN}")


def _alpaca(value: Mapping[str, Any]) -> tuple[Message, ...]:
    instruction, source = _text(value, "instruction"), _text(value, "input", default="")
    output = _text(value, "output")
    if not instruction.strip():
        raise _Problem("`instruction` is empty")
    asked = (Message("user", instruction), Message("user", source)) if source else (Message("user", instruction),)
    return (*asked, Message("assistant", output))


def _prompt_completion(value: Mapping[str, Any]) -> tuple[Message, ...]:
    prompt, completion = _text(value, "prompt"), _text(value, "completion")
    if not prompt.strip():
        raise _Problem("`prompt` is empty")
    return Message("user", prompt), Message("assistant", completion)


def _plain_text(value: Mapping[str, Any]) -> tuple[Message, ...]:
    text = _text(value, "text")
    if not text.strip():
        raise _Problem("`text` is empty")
    return (Message("assistant", text),)


def _chat(value: Mapping[str, Any]) -> tuple[Message, ...]:
    return _conversation(value, "messages", "role", "content", {role: role for role in get_args(Role)})


def _sharegpt(value: Mapping[str, Any]) -> tuple[Message, ...]:
    return _conversation(value, "conversations", "from", "value", _SHAREGPT_ROLES)


def _conversation(
    value: Mapping[str, Any], key: str, role_key: str, content_key: str, roles: Mapping[str, Role]
) -> tuple[Message, ...]:
    turns = value.get(key)
    if turns is None:
        raise _Problem(f"`{key}` is missing")
    if not isinstance(turns, list):
        raise _Problem(f"`{key}` must be a list, this is a {type(turns).__name__}")
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        try:
            messages.append(_message(turn, role_key, content_key, roles))
        except _Problem as problem:
            raise _Problem(f"message {number} of `{key}`: {problem}") from None
    _check_order(messages)
    return tuple(messages)


def _message(turn: object, role_key: str, content_key: str, roles: Mapping[str, Role]) -> Message:
    if not isinstance(turn, dict):
        raise _Problem(f"it must be an object, this is a {type(turn).__name__}")
    other = other_message(turn, role_key, content_key)
    if other is not None:
        raise _Problem(other)
    name = _text(turn, role_key)
    if name not in roles:
        raise _Problem(f"`{role_key}` is {name[:40]!r}; it must be one of {', '.join(roles)}")
    content = _text(turn, content_key)
    if not content.strip() and roles[name] != "tool":
        raise _Problem(f"`{content_key}` is empty")
    return Message(roles[name], content)


def _check_order(messages: list[Message]) -> None:
    before: Role | None = None
    for number, message in enumerate(messages, start=1):
        if message.role not in _MAY_FOLLOW[before]:
            expected = " or ".join(_MAY_FOLLOW[before])
            place = f"after {before}" if before else "at the start"
            raise _Problem(f"message {number} is of {message.role}; {place} comes {expected}")
        before = message.role
    if not any(message.role == "assistant" for message in messages):
        raise _Problem("the chat has no turn of the assistant, so there is nothing to learn")
    if before != "assistant":
        raise _Problem(f"the last message is of {before}; a chat ends with the assistant")


def _text(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    text = value.get(name)
    if text is None:
        if default is None:
            raise _Problem(f"`{name}` is missing")
        return default
    if not isinstance(text, str):
        raise _Problem(f"`{name}` must be a string, this is a {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _Problem(f"`{name}` holds half a surrogate pair") from None
    return text


_PARSERS: dict[FormatName, Callable[[Mapping[str, Any]], tuple[Message, ...]]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "chat": _chat,
    "sharegpt": _sharegpt,
    "text": _plain_text,
}
_DETECTED_BY: tuple[tuple[str, FormatName], ...] = (
    ("messages", "chat"),
    ("conversations", "sharegpt"),
    ("instruction", "alpaca"),
    ("output", "alpaca"),
    ("prompt", "prompt_completion"),
    ("completion", "prompt_completion"),
    ("text", "text"),
)
