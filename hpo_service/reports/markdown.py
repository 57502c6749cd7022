"""A report as Markdown, as GitHub reads it. Texts are escaped, so that no name can become markup."""

import re
from collections.abc import Iterator, Sequence

from hpo_service.formatting.values import cell
from hpo_service.reports.blocks import Block, Command, Figure, Listing, Paragraph, Section, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")
#: what begins a list, a quotation or an underlined heading where a line begins
_LEADING = re.compile(r"^(?:>|[-+](?=\s|$)|[-=]+$|\d+(?=[.)](?:\s|$)))")


def markdown(study: str, sections: Sequence[Section]) -> str:
    """The text."""
    lines = [f"# Report on study {escaped(study)}", ""]
    for section in sections:
        lines += [f"## {escaped(section.title)}", ""]
        for block in section.blocks:
            if written := [*_block(block)]:
                lines += [*written, ""]
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """One line that is no markup: neither Markdown's nor HTML's."""
    words = " ".join(text.split())
    safe = _SPECIAL.sub(r"\\\1", words.replace("&", "&amp;").replace("<", "&lt;"))
    found = _LEADING.match(safe)
    if found is None:
        return safe
    end = found.end()
    return f"{safe[:end]}\\{safe[end:]}" if found[0].isdigit() else f"\\{safe}"


def code(text: str) -> str:
    """A piece of code within a line, whatever backticks are in it."""
    words = " ".join(text.split())
    fence = "`" * (_longest_run(words) + 1)
    return f"{fence} {words} {fence}" if "`" in words else f"{fence}{words}{fence}"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph(text, tone):
            quoted = {"warning": "> ", "lead": "**"}.get(tone, "")
            yield f"{quoted}{escaped(text)}{'**' if tone == 'lead' else ''}"
        case Command(before, command):
            yield f"{escaped(before)} {code(command)}"
        case Table():
            yield from _table(block)
        case Listing():
            fence = "`" * max(3, _longest_run(block.text) + 1)
            yield from (f"**{escaped(block.title)}**", "", fence, block.text.rstrip("\n"), fence)
        case Figure(title=title, about=about, figures=figures):
            if figures is None:
                return
            yield from (f"### {escaped(title)}", "")
            if about:
                yield from (escaped(about), "")
            yield from _table(figures)


def _table(table: Table) -> Iterator[str]:
    width = max([len(table.columns), *(len(row) for row in table.rows)], default=0)
    columns = list(table.columns) or [""] * width
    yield f"| {' | '.join(escaped(column) for column in columns)} |"
    yield f"|{'---|' * width}"
    for row in table.rows:
        yield f"| {' | '.join(escaped(cell(value)) for value in row)} |"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
