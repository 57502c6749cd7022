"""What a pull request says of the parameters that it brings: the evidence, what changes, and what does not."""

import re
from collections.abc import Sequence
from typing import Any

from hpo_service.cli.export_file import Delivered
from hpo_service.formatting.comparison import bill as bill_words
from hpo_service.formatting.comparison import over, reached
from hpo_service.formatting.values import plural

Json = dict[str, Any]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~@])")
_MENTION = re.compile(r"(?<!\w)([@#!])(?=\w)")
_DIGITS = 12


def body(promotion: Json, delivered: Delivered, address: str) -> str:
    """Markdown. `promotion` is what the API says of it, `address` is where the service's pages are."""
    label = f"{promotion['name']}@{promotion['version']}"
    parts = [
        _plain(promotion["verdict"]),
        _table(("", ""), _evidence(promotion, label, address)),
        "### What changes",
        _changes(delivered),
    ]
    if delivered.batch is not None:
        parts.append(_plain(delivered.batch) + ".")
    if delivered.missed:
        parts += ["### What is not as it was trained", "\n".join(f"- {_plain(one)}" for one in delivered.missed)]
    if delivered.unwritten:
        parts += ["### What was not written", "\n".join(f"- {_plain(sentence)}" for sentence in delivered.unwritten)]
    return "\n\n".join(parts) + "\n"


def _evidence(promotion: Json, label: str, address: str) -> list[tuple[str, str]]:
    study, bill, digests = promotion["study"], promotion["bill"], promotion["digests"]
    usd = bill["study_usd"] + bill["confirmation_usd"]
    took = bill_words(bill["study_seconds"], bill["confirmation_seconds"], usd)
    known = ", ".join(f"{name.replace('_', ' ')} `{digest[:_DIGITS]}`" for name, digest in digests.items() if digest)
    return [
        ("Gain over the baseline", _gain(promotion["comparison"])),
        ("Losses", _losses(promotion["losses"])),
        ("Cost of finding it", took),
        ("Study", f"[{_plain(study)}]({address}/studies/{study}), trial {promotion['trial_number']}"),
        ("Promotion", f"[{_plain(label)}]({address}/promotions/{promotion['name']}/{promotion['version']}), "
                      f"by {_plain(promotion['promoted_by'])} on {promotion['created_at'][:10]}"),
        ("Approval", _approval(promotion)),
        *([("Note", _plain(promotion["note"]))] if promotion["note"] else []),
        ("SHA-256", known),
    ]  # fmt: skip


def _gain(comparison: Json | None) -> str:
    if comparison is None:
        return "not known: there is no baseline, or this is it"
    width = comparison["half_width"]
    interval = "no interval is known" if width is None else f"95 % interval ± {width:.4f}"
    seeds, examples = over(comparison["seeds"]), reached(comparison["examples"], comparison["baseline_examples"])
    return (
        f"{comparison['difference']:+.4f} loss ({comparison['loss']:.4f} instead of "
        f"{comparison['baseline_loss']:.4f}), {interval}, {seeds}, {examples}"
    )


def _losses(losses: Json) -> str:
    confirmed, mean = losses["confirmed_loss"], f"mean over {plural(losses['confirmed_seeds'], 'new seed')}"
    found = [
        None if confirmed is None else f"confirmed {confirmed:.4f} ({mean})",
        None if losses["searched_loss"] is None else f"in the search {losses['searched_loss']:.4f}",
        None if losses["test_loss"] is None else f"on test rows {losses['test_loss']:.4f} ({mean})",
    ]
    return "; ".join(one for one in found if one is not None)


def _approval(promotion: Json) -> str:
    if promotion["approved_by"]:
        return f"by {_plain(promotion['approved_by'])} on {promotion['approved_at'][:10]}"
    repeats = promotion["rollback_of"]
    return "needs none" if repeats is None else f"needs none: it repeats version {repeats}"


def _changes(delivered: Delivered) -> str:
    if delivered.changes is None:
        return "The file is written as a whole; see its diff."
    if not delivered.changes:
        return "No value: the file has them already."
    rows = [
        (_code(one.name), "" if one.before is None else _code(one.before), _code(one.after))
        for one in delivered.changes
    ]
    return _table(("value", "before", "after"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """One line that no Markdown is read in."""
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else ""


def _plain(text: str) -> str:
    """One line of text that is no Markdown, no HTML and mentions nobody."""
    line = _MENTION.sub("\\1\u200b", " ".join(text.split()))  # hosts look for names and numbers after Markdown is read
    return _SPECIAL.sub(r"\\\1", line)
