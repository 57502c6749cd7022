"""Files that people write, such as studies and trials: where their paths lead, and what is wrong with them."""

from pathlib import Path

from pydantic import ValidationError


def found_path(name: str, folder: Path) -> str:
    """A path as it is written in a file of `folder`: from the current folder, else from the file's."""
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def first_problem(error: ValidationError) -> str:
    """The first problem with its place, and how many there are beside it."""
    problems = error.errors()
    where = ".".join(str(part) for part in problems[0]["loc"]) or "the file"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {problems[0]['msg']}{more}"
