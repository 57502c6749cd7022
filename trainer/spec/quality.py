"""What is checked in data before it is trained on, and what came out."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Frozen

Verdict = Literal["pass", "warn", "fail"]


class Threshold(Frozen):
    """A measure above `warn` or `fail` has that verdict; None: never."""

    warn: float | None = None
    fail: float | None = None


class QualityThresholds(Frozen):
    """When each check warns or fails; measures are shares of rows (0 to 1) unless the name says otherwise."""

    enabled: bool = True
    near_duplicates: Threshold = Threshold(warn=0.02, fail=0.5)


class Finding(Frozen):
    """One check: what was measured, how many rows, the first lines (1-based) where it was seen."""

    check: str
    verdict: Verdict
    measure: float
    threshold: Threshold = Threshold()
    rows: int = 0
    lines: tuple[str, ...] = ()
    message: str


class QualityReport(Frozen):
    """`statistics` are plain numbers about the data (rows, token lengths, languages)."""

    version: Literal[1] = 1
    verdict: Verdict
    findings: tuple[Finding, ...]
    statistics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    train_rows: int
    eval_rows: int
    train_sha256: str
    eval_sha256: str | None = None
    seconds: float = 0.0
