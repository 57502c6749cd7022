"""All checks of a study's data, and the report."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainer.common.model_files import max_positions
from trainer.data.fingerprint import data_digest
from trainer.quality.comparisons import exact_observations, near_observations
from trainer.quality.distributions import eval_size, language_shift, length_shift
from trainer.quality.observation import Observation
from trainer.quality.processes import Processes
from trainer.quality.shared_text import SharedText
from trainer.quality.sides import Sides, all_sides_of, sides_of, sides_with_test
from trainer.quality.single_rows import single_row_observations
from trainer.quality.table import RowTable, read_table
from trainer.quality.tokens import has_fast_tokenizer
from trainer.spec import DataSpec, QualityReport, QualityThresholds
from trainer.spec.quality import CHECKS, Finding, FindingVerdict, Verdict

_RANK: dict[FindingVerdict, int] = {"not_run": 0, "pass": 0, "warn": 1, "fail": 2}


def check_data(
    data: DataSpec,
    model: str | None,
    thresholds: QualityThresholds,
    processes: int = 1,
    scratch: Path | None = None,
) -> QualityReport:
    """Look at every row of `data` and report. The report but for `seconds` depends on the arguments' content alone.

    Without `model`, whose tokenizer says how long rows are, words stand for tokens and truncation is not judged.
    For `scratch` see `read_table`.

    Raises:
        RowError: a file is not there, cannot be read to its end or changes while it is read.
        UserError: the model is not there or its tokenizer does not fit the data.
        ProcessLost: one of the processes was killed.
        OSError: `scratch` cannot be used.
    """
    started = time.monotonic()
    no_tokenizer = _why_no_tokenizer(model)
    tokenizer_path = None if no_tokenizer else model
    data, limit = _cut_as_training_does(data, tokenizer_path)
    with Processes(processes) as pool:
        shared = SharedText()
        train = read_table(data.train, data, tokenizer_path, pool, shared, scratch)
        evaluation = read_table(data.eval, data, tokenizer_path, pool, shared, scratch) if data.eval else None
        test = read_table(data.test, data, tokenizer_path, pool, shared, scratch) if data.test else None
        tables = [table for table in (train, evaluation, test) if table is not None]
        sides = sides_of(data, train, evaluation)
        statistics = _statistics(sides, tables)
        observations = [
            *single_row_observations(tables, no_tokenizer, limit),
            *_compared(sides, tables, shared, thresholds, pool, statistics),
            *_tested(all_sides_of(data, train, evaluation), test, tables, shared, thresholds, pool),
        ]
    findings = _findings(observations, thresholds)
    train_digest, eval_digest, test_digest = _digests(data)
    return QualityReport(
        verdict=_worst(findings),
        findings=findings,
        statistics=statistics,
        train_rows=len(sides.train),
        eval_rows=len(sides.evaluation),
        test_rows=None if test is None else len(test),
        train_sha256=train_digest,
        eval_sha256=eval_digest,
        test_sha256=test_digest,
        seconds=round(time.monotonic() - started, 3),
    )


def _cut_as_training_does(data: DataSpec, model: str | None) -> tuple[DataSpec, str]:
    """(data with the length at which training cuts rows, what sets it)."""
    positions = None if model is None else max_positions(Path(model))
    if positions is None or positions >= data.max_length:
        return data, "max_length"
    return data.model_copy(update={"max_length": positions}), f"the {positions:,} tokens that the model takes"


def _why_no_tokenizer(model: str | None) -> str | None:
    if model is None:
        return "no model was given, so rows cannot be measured in tokens"
    if not has_fast_tokenizer(model):
        return f"model {model} has no tokenizer.json, so rows cannot be measured in tokens"
    return None


def _compared(
    sides: Sides,
    tables: list[RowTable],
    shared: SharedText,
    thresholds: QualityThresholds,
    pool: Processes,
    statistics: dict[str, float],
) -> Iterator[Observation]:
    """Checks that need rows on both sides."""
    if not len(sides.train) or not len(sides.evaluation):
        reason = "there are no rows to train on or none to evaluate with"
        yield from (Observation(check, not_run=reason) for check in _COMPARING)
        return
    yield from exact_observations(sides)
    if _wanted(thresholds, "near_duplicates", "leakage_near", "leakage_ngrams"):
        yield from near_observations(sides, shared.slots(sum(map(len, tables))), pool)
    yield length_shift(sides)
    if _wanted(thresholds, "language_shift"):
        shift, languages = language_shift(sides)
        statistics.update(languages)
        yield shift
    size, numbers = eval_size(sides, thresholds)
    statistics.update(numbers)
    yield size


_TESTING = tuple(check for check in CHECKS if check.startswith("test_"))
_COMPARING = tuple(check for check in CHECKS[CHECKS.index("exact_duplicates") :] if check not in _TESTING)


def _tested(
    sides: Sides,
    test: RowTable | None,
    tables: list[RowTable],
    shared: SharedText,
    thresholds: QualityThresholds,
    pool: Processes,
) -> Iterator[Observation]:
    """Test rows against training rows, and against the evaluation rows by which the search chooses."""
    if test is None or not len(test) or not len(sides.train) or not len(sides.evaluation):
        reason = "there are no test rows, or no rows to train on or to evaluate with"
        yield from (Observation(check, not_run=reason) for check in _TESTING)
        return
    for compared, prefix in zip(sides_with_test(sides, test), ("test_", "test_eval_"), strict=True):
        seen = list(exact_observations(compared))
        if _wanted(thresholds, f"{prefix}leakage_near"):
            seen += near_observations(compared, shared.slots(sum(map(len, tables))), pool)
        yield from (replace(one, check=prefix + one.check) for one in seen if prefix + one.check in _TESTING)


def _wanted(thresholds: QualityThresholds, *checks: str) -> bool:
    return not all(thresholds.threshold(check).off for check in checks)


def _findings(observations: Iterable[Observation], thresholds: QualityThresholds) -> tuple[Finding, ...]:
    seen = {observation.check: observation for observation in observations}
    return tuple(_finding(check, seen.get(check), thresholds) for check in CHECKS)


def _finding(check: str, seen: Observation | None, thresholds: QualityThresholds) -> Finding:
    threshold = thresholds.threshold(check)
    if threshold.off:
        return Finding(check=check, verdict="not_run", message="switched off")
    assert seen is not None
    if seen.not_run is not None:
        return Finding(check=check, verdict="not_run", threshold=threshold, message=seen.not_run)
    return Finding(
        check=check,
        verdict=threshold.verdict(seen.measure),
        measure=round(seen.measure, 6),
        threshold=threshold,
        rows=seen.rows,
        lines=seen.lines,
        message=seen.message,
    )


def _worst(findings: Iterable[Finding]) -> Verdict:
    verdicts: dict[int, Verdict] = {0: "pass", 1: "warn", 2: "fail"}
    return verdicts[max(_RANK[finding.verdict] for finding in findings)]


def _statistics(sides: Sides, tables: list[RowTable]) -> dict[str, float]:
    numbers: dict[str, float] = {"file_rows": float(sum(len(table) + table.problems.rows for table in tables))}
    for name, side in (("train", sides.train), ("eval", sides.evaluation)):
        for what, counts in (("tokens", side.table.tokens), ("response_tokens", side.table.learned)):
            values = counts[side.rows]
            if len(values) and values.any():
                numbers |= {f"{name}_{what}_{key}": round(float(of(values)), 1) for key, of in _SUMMARIES.items()}
    return numbers


_SUMMARIES: dict[str, Callable[..., float]] = {
    "p50": lambda values: np.percentile(values, 50),
    "p95": lambda values: np.percentile(values, 95),
    "max": lambda values: values.max(),
}


def _digests(data: DataSpec) -> tuple[str, str | None, str | None]:
    """(training, evaluation, test)."""
    with tempfile.TemporaryDirectory() as folder:
        evaluation, test = (path and data_digest(path, Path(folder)) for path in (data.eval, data.test))
        return data_digest(data.train, Path(folder)), evaluation, test
