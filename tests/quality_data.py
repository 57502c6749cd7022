"""Rows for the tests of the quality gate: clean by default, all different, the same on every run."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.quality.gate import check_data
from trainer.spec import DataSpec, QualityReport, QualityThresholds
from trainer.spec.quality import Finding

SYLLABLES = ["ka", "lo", "mi", "ran", "tel", "sor", "bin", "du", "fe", "gam", "hol", "pir", "sta", "ve", "wun", "zo"]
Row = dict[str, Any]
# Put together here, so that no scanner takes this file for a leak.
AWS_KEY = "AKIA" + "QY7TBN2MWX4KLR5V"
TOKENS = {
    "AWS access key": AWS_KEY,
    "GitHub token": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "GitLab token": "glpat-" + "xY3kT9mQ2wL5vB8nC1dF",
    "Slack token": "xoxb-" + "17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy",
    "Stripe key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "Google API key": "AIza" + "SyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
    "API key": "sk-proj-" + "Zq3vN8xK1mT5wL9rB2cD7fG4hJ6pS0uY",
    "Hugging Face token": "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9."
    + "eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA7bq3",
    "password in a URL": "postgres://admin:" + "tR7vQ9kLm2@db.internal",
}
PRIVATE = {
    "e-mail address": "jane.roe@" + "mailbox.org",
    "phone number": "+49 30 " + "9012 3486",
    "payment card": "4539 1488 " + "0343 6467",
    "IBAN": "DE89 3704 0044 " + "0532 0130 00",
}


def sentence(draw: random.Random, words: int) -> str:
    """Words that do not exist, so that no two sentences are alike by chance."""
    return " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(words))


def clean_rows(count: int, seed: int = 0, words: int = 14) -> list[Row]:
    """Alpaca rows."""
    draw = random.Random(seed)
    return [
        {"instruction": sentence(draw, 7), "input": sentence(draw, 5), "output": sentence(draw, words)}
        for _ in range(count)
    ]


def write_rows(path: Path, rows: Iterable[Row | str]) -> str:
    """JSON lines; a string is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def report_on(
    train: str, held_out: str | None = None, model: Path | None = None, processes: int = 1, **values: Any
) -> QualityReport:
    """The gate's report with default thresholds, or `thresholds`."""
    thresholds = values.pop("thresholds", QualityThresholds())
    data = DataSpec(train=train, eval=held_out, **values)
    return check_data(data, None if model is None else str(model), thresholds, processes)


def finding(report: QualityReport, check: str) -> Finding:
    """One finding by its name."""
    return next(found for found in report.findings if found.check == check)


def lines_of(report: QualityReport, check: str) -> list[str]:
    """The places that a finding names, without their partners."""
    return [line.split(" ")[0] for line in finding(report, check).lines]
