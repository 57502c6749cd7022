"""Where the values of a file come from, as comment lines at its top."""

from typing import Any

from trainer.spec import TrialFile

_DIGITS = 12
_DIGESTS = {"base_digest": "base model", "train_digest": "training rows", "eval_digest": "evaluation rows"}


def header(document: TrialFile, *remarks: str, dropped: tuple[str, ...] = ()) -> str:
    """Comment lines: the trial and what it reached, promotion, digests, date; `remarks` on use; what was dropped.

    JSON has no comments, so formats in JSON have no header.
    """
    lines = [*provenance_lines(document), *remarks]
    if document.data.format == "auto" and lines:
        lines.append("The format of the rows was not recorded; the trainer finds it in the first row of each file")
    if dropped:
        lines.append(f"Dropped, because there is no key for it here: {', '.join(dropped)}")
    return "".join(f"# {_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    """Text of one line that every YAML reader accepts in a comment."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def provenance_lines(document: TrialFile) -> list[str]:
    """Nothing for a document that does not come from a study."""
    facts = document.provenance
    if "study" not in facts:
        return []
    return [*_origin(document), f"Exported {facts.get('date')} by {_generator(facts)}"]


def origin_lines(document: TrialFile) -> list[str]:
    """As `provenance_lines`, without when that was: for files whose history others keep."""
    return [_one_line(line) for line in _origin(document)] if "study" in document.provenance else []


def _origin(document: TrialFile) -> list[str]:
    facts = document.provenance
    lines = [f"Trial {facts.get('trial')} of study {facts['study']}: {_reached(facts)}", *_searched(document)]
    if "promotion" in facts:
        lines.append(f"Promotion {facts['promotion']} by {facts.get('promoted_by')}: {facts.get('verdict')}")
    return [*lines, f"SHA-256 of {_digests(document)}"]


def _reached(facts: dict[str, Any]) -> str:
    """The trial's loss; of a confirmed one the mean over new seeds."""
    metric = facts.get("metric")
    if "confirmed_loss" not in facts:
        provisional = " (provisional: not trained to its end)" if facts.get("provisional") else ""
        return f"{metric} {facts.get('loss')}{provisional}"
    seeds = "one new seed" if facts["confirmed_seeds"] == 1 else f"the mean over {facts['confirmed_seeds']} new seeds"
    return f"confirmed {metric} {facts['confirmed_loss']}, {seeds}"


def _searched(document: TrialFile) -> list[str]:
    """Of a confirmed trial, what a run of the file repeats."""
    facts = document.provenance
    if "confirmed_loss" not in facts or "searched_loss" not in facts:
        return []
    said = f"In the search, with seed {document.training.seed}: {facts.get('metric')} {facts['searched_loss']} "
    if facts["searched_examples"] == facts["examples"]:
        return [said + "at its end; that is what a run of this file repeats"]
    return [said + f"after {facts['searched_examples']} of {facts['examples']} examples"]


def _digests(document: TrialFile) -> str:
    known = [f"{words} {document.provenance[name][:_DIGITS]}" for name, words in _DIGESTS.items()
             if name in document.provenance]  # fmt: skip
    return ", ".join([f"the trial {document.trial().digest()[:_DIGITS]}", *known])


def _generator(facts: dict[str, Any]) -> str:
    commit = f", commit {facts['commit'][:_DIGITS]}" if "commit" in facts else ""
    return f"{facts.get('generator')}{commit}"
