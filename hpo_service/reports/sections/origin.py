"""What the results rest on: data, spec, devices and software."""

import json
from typing import Any

from hpo_service.exporters.yaml_text import yaml_text
from hpo_service.formatting.values import Cell
from hpo_service.reports.blocks import Block, Listing, Paragraph, Section, Table
from hpo_service.services.reports.facts import StudyReport

_WORST_FIRST = ("fail", "warn")
_MOST_LINES = 3
_REPEATABLE = {None: None, True: "yes", False: "no"}


def data_quality(report: StudyReport) -> Section:
    """The verdict of the quality gate and what it found."""
    check = report.data_check
    found = check.report
    if found is None:
        words = f"The check of the data is {check.state}." + (f" {check.message}" if check.message else "")
        return Section(title="Data quality", blocks=[Paragraph(words)])
    counts = {
        word: sum(finding["verdict"] == word for finding in found["findings"]) for word in ("pass", "warn", "fail")
    }
    words = (
        f"{found['verdict'].upper()}: {found['train_rows']:,} rows to train on, {found['eval_rows']:,} to evaluate "
        f"with; {counts['pass']} checks passed, {counts['warn']} warned, {counts['fail']} failed."
    )
    listed = [_finding(finding) for word in _WORST_FIRST for finding in found["findings"] if finding["verdict"] == word]
    columns = ("verdict", "check", "measure", "rows", "what was seen", "first lines")
    blocks: list[Block] = [Paragraph(words), *([Table(columns=columns, rows=listed)] if listed else [])]
    return Section(title="Data quality", blocks=[*blocks, Table(rows=_digests(found))])


def specification(report: StudyReport) -> Section:
    """The spec as it was posted, and as it was resolved."""
    study = report.study
    resolved = json.dumps(study.resolved, indent=2, ensure_ascii=False)
    return Section(
        title="Specification",
        blocks=[
            Listing(title="As posted (YAML)", text=yaml_text(study.spec)),
            Listing(title="Resolved: preset, paths, space and rungs expanded (JSON)", text=resolved),
        ],
    )


def environment(report: StudyReport) -> Section:
    """On what the attempts ran that ended well."""
    rows: list[tuple[Cell, ...]] = [
        (
            f"{one.devices} x {one.device}" if one.devices > 1 else one.device,
            one.dtype or None,
            one.attention or None,
            _REPEATABLE[one.repeatable],
            ", ".join(f"{name} {version}" for name, version in one.software.items()) or None,
            one.attempts,
        )
        for one in report.surroundings
    ]
    table = Table(columns=("device", "dtype", "attention", "steps repeat", "software", "attempts"), rows=rows)
    nothing = Paragraph("Nothing has run.", "soft")
    return Section(title="Environment", blocks=[table if rows else nothing])


def _finding(finding: dict[str, Any]) -> tuple[Cell, ...]:
    lines = ", ".join(finding["lines"][:_MOST_LINES])
    return (
        finding["verdict"], finding["check"], f"{finding['measure']:.4g}", finding["rows"], finding["message"], lines,
    )  # fmt: skip


def _digests(found: dict[str, Any]) -> list[tuple[str, Cell]]:
    names = {"train_sha256": "training data, SHA-256", "eval_sha256": "evaluation data, SHA-256",
             "test_sha256": "test data, SHA-256"}  # fmt: skip
    return [(words, found[name]) for name, words in names.items() if found.get(name)]
