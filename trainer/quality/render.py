"""A report as Markdown and as plain text for a terminal."""

import textwrap
from collections.abc import Iterator

from trainer.spec import QualityReport
from trainer.spec.quality import Finding

_WORDS = {"pass": "PASS", "warn": "WARN", "fail": "FAIL", "not_run": "-"}
_ORDER = ("fail", "warn", "not_run", "pass")
_WIDTH = 110


def terminal(report: QualityReport) -> str:
    """Plain text: the verdict, then every finding, the worst first."""
    lines = [_headline(report), ""]
    for finding in _worst_first(report):
        head = f"{_WORDS[finding.verdict]:<4}  {finding.check:<21}  "
        lines += textwrap.wrap(finding.message, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        if finding.verdict in ("warn", "fail") and finding.lines:
            lines += [" " * len(head) + line for line in finding.lines]
    return "\n".join(lines) + "\n"


def markdown(report: QualityReport) -> str:
    """Markdown: the verdict, a table of the findings, lines of those that warn or fail, statistics."""
    lines = [f"# Data quality: {_WORDS[report.verdict]}", "", _headline(report), ""]
    lines += ["| verdict | check | measure | warns above | fails above | what was seen |", "|---|---|---|---|---|---|"]
    for finding in _worst_first(report):
        numbers = (finding.measure, finding.threshold.warn, finding.threshold.fail)
        shown = ["" if number is None or finding.verdict == "not_run" else f"{number:.4g}" for number in numbers]
        cells = [_WORDS[finding.verdict], f"`{finding.check}`", *shown, _cell(finding.message)]
        lines.append(f"| {' | '.join(cells)} |")
    for finding in _worst_first(report):
        if finding.verdict in ("warn", "fail") and finding.lines:
            lines += ["", f"## {finding.check}", "", *(f"- {_cell(line)}" for line in finding.lines)]
    lines += ["", "## Statistics", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {value:,g} |" for name, value in report.statistics.items()]
    lines += ["", f"Training data: SHA-256 `{report.train_sha256}`"]
    if report.eval_sha256:
        lines += ["", f"Evaluation data: SHA-256 `{report.eval_sha256}`"]
    if report.test_sha256:
        lines += ["", f"Test data: SHA-256 `{report.test_sha256}`"]
    return "\n".join(lines) + "\n"


def _headline(report: QualityReport) -> str:
    counts = [
        f"{sum(finding.verdict == verdict for finding in report.findings)} {word}"
        for verdict, word in (
            ("fail", "failed"),
            ("warn", "with a warning"),
            ("pass", "passed"),
            ("not_run", "not run"),
        )
    ]
    tested = "" if report.test_rows is None else f", {report.test_rows:,} to test with"
    return (
        f"{_WORDS[report.verdict]}: {report.train_rows:,} rows to train on, {report.eval_rows:,} to evaluate "
        f"with{tested}; checks: {', '.join(counts)}; {report.seconds:.1f} s"
    )


def _worst_first(report: QualityReport) -> Iterator[Finding]:
    for verdict in _ORDER:
        yield from (finding for finding in report.findings if finding.verdict == verdict)


def _cell(text: str) -> str:
    """Text that ends neither its cell nor its line, and is no markup."""
    return " ".join("".join(f"\\{c}" if c in "|`*_<>[]\\#" else c for c in text).split())
