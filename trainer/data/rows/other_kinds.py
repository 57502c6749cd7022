"""Rows and files that are of another kind than those that are trained on: what they are, and what to do with them."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

PREFERENCE_KEYS = frozenset({"chosen", "rejected"})
#: with one of these beside it, a pair of answers need not be looked at
_ANSWERS = frozenset({"output", "completion", "messages", "conversations", "text"})
_PREFERENCE = (
    "a preference pair (`chosen` and `rejected`), which DPO trains on; here a row has one answer: write `chosen` as "
    "`completion` beside the `prompt` and drop `rejected`"
)
_TABLES = {".csv": "CSV", ".tsv": "TSV"}
_SHEETS = {".xlsx": "an Excel", ".xls": "an Excel", ".ods": "an OpenDocument"}
_ARROW = frozenset({".arrow", ".feather"})
_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"})
_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz"})
#: a name that may stand in a command that is copied into a shell
_PLAIN = re.compile(r"[A-Za-z0-9_. -]+")
_CALL_ROLES = frozenset({"function", "function_call", "observation", "tool_call", "tool_response"})


def other_file(path: Path) -> str | None:
    """What a file of this name is instead of rows, as a sentence; None where it may hold rows."""
    ending = path.suffix.lower()
    if ending in _TABLES:
        stem = path.stem if _PLAIN.fullmatch(path.stem) else "FILE"
        separator = ", sep='\\t'" if ending == ".tsv" else ""
        return (
            f'it is a {_TABLES[ending]} file; rows are JSON lines or Parquet. Convert it: python -c "import pandas; '
            f"pandas.read_csv('{stem}{ending}'{separator}).to_json('{stem}.jsonl', orient='records', lines=True)\", "
            "with columns called prompt and completion, or instruction and output"
        )
    if ending in _SHEETS:
        return f"it is {_SHEETS[ending]} file; rows are JSON lines or Parquet: save it as CSV and convert that"
    if ending in _ARROW:
        return (
            "it is an Arrow file, as `save_to_disk` of Hugging Face's datasets writes it; write Parquet with "
            "`Dataset.to_parquet`"
        )
    if ending in _ARCHIVES:
        return "it is an archive; unpack it: rows are read from .jsonl, .jsonl.gz and .parquet files"
    if ending in _PICKLES:
        return "it is in a format that can run code when it is read; rows are JSON lines or Parquet"
    return None


def other_files(paths: Iterable[Path]) -> str:
    """The same of the first such file in a folder without shards, to be appended; empty if there is none."""
    found = next(((path.name, said) for path in paths if (said := other_file(path)) is not None), None)
    return "" if found is None else f". It holds {found[0]}: {found[1]}"


def other_columns(names: Collection[str]) -> str | None:
    """What a table with these columns holds instead of rows to train on; None where it may hold such rows."""
    return _PREFERENCE if PREFERENCE_KEYS.issubset(names) and not _ANSWERS.intersection(names) else None


def other_row(value: object) -> str | None:
    """What a row that could not be read is, if that is known."""
    if isinstance(value, list):
        return "a list; if the file is one JSON array, write one object a line: jq -c '.[]' FILE > rows.jsonl"
    if isinstance(value, Mapping) and value.keys() >= PREFERENCE_KEYS:
        return _PREFERENCE
    return None


def other_message(turn: Mapping[str, object], role_key: str, content_key: str) -> str | None:
    """What a message is that cannot be learned: a call of a tool, or parts of several kinds."""
    call = next((key for key in ("tool_calls", "function_call") if turn.get(key)), None)
    if call is not None:
        return f"`{call}` (a call of a tool) cannot be learned; write the call into the content, as it is to be said"
    role = turn.get(role_key)
    if isinstance(role, str) and role in _CALL_ROLES:
        return (
            f"`{role_key}` {role!r} is of a call of a tool; write calls into what the assistant says, and answers of "
            "tools as role 'tool'"
        )
    if isinstance(turn.get(content_key), list):
        return (
            f"`{content_key}` must be a string, this is a list of parts; join their texts into one, images and sounds "
            "are not trained on"
        )
    return None


def other_line(raw: bytes) -> str:
    """What the first line of a file that is no JSON may be, to be appended to what is wrong with it."""
    begin = raw.lstrip()[:1]
    if begin == b"[":
        return ". The file is one JSON array; rows are one JSON object a line: jq -c '.[]' FILE > rows.jsonl"
    if begin not in (b"{", b"") and b"," in raw:
        return ". It looks like CSV; rows are JSON lines (one JSON object a line) or Parquet"
    return ". Rows are JSON lines, one JSON object a line"
