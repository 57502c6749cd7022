"""What is checked in data before it is trained on, and what came out."""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from trainer.spec.base import Frozen, Sha256

Verdict = Literal["pass", "warn", "fail"]
FindingVerdict = Literal["pass", "warn", "fail", "not_run"]

_Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Threshold(Frozen):
    """A measure above `warn` or `fail` has that verdict; null: never. With neither, the check is not run.

    In `QualityThresholds` what is left out keeps its default, and a word may stand for the whole: `off`, or `warn` or
    `fail` for that verdict at the measure at which the check warns by default.
    """

    warn: _Limit | None = None
    fail: _Limit | None = None

    @property
    def off(self) -> bool:
        """Whether no measure can warn or fail."""
        return self.warn is None and self.fail is None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string", "enum": ["off", "warn", "fail"]}]}

    def verdict(self, measure: float) -> Verdict:
        """What `measure` means."""
        if self.fail is not None and measure > self.fail:
            return "fail"
        return "warn" if self.warn is not None and measure > self.warn else "pass"


class QualityThresholds(Frozen):
    """When each check warns or fails. Measures are shares of rows (0 to 1) unless said otherwise.

    The first group looks at each row of all files by itself, the second at the training rows together, the third at
    evaluation rows against training rows, the last at test rows against both. Text is compared without regard to case
    and white space.

    Attributes:
        unreadable_rows: rows that training cannot read. Any of them stops a trial, so any fails.
        empty_responses: nothing to learn.
        tiny_responses: fewer than three characters that are not white space.
        truncated_rows: longer than `max_length` tokens, or than the model takes.
        truncated_responses: no token of the response is left within that; training leaves these rows out.
        mojibake: text decoded with the wrong encoding (`Ã©` for `é`), by ftfy's heuristic.
        control_characters: control characters other than tab and line ends, or U+FFFD.
        refusals: responses that refuse or speak as an AI model.
        boilerplate: placeholders, chat-template markers and web page remains in the text.
        repetition: responses that repeat themselves (most of their four-word runs, or a very long run of one
            character).
        secrets: keys, tokens and passwords. Reports name their kind and line, never their text.
        personal_data: e-mail addresses, phone numbers, payment cards, IBANs.
        exact_duplicates: training rows after the first of equal ones.
        conflicting_responses: training rows whose prompt has other responses too.
        near_duplicates: training rows with an earlier one at a Jaccard similarity of 0.8 or more.
        leakage_exact: evaluation rows that are training rows too.
        leakage_prompts: evaluation rows whose prompt is a training prompt, with another response.
        leakage_near: evaluation rows with a training row at a Jaccard similarity of 0.8 or more.
        leakage_ngrams: evaluation rows that share 13 words in a row with 1 to 10 training rows (more is a template).
        length_shift: Kolmogorov-Smirnov distance (0 to 1) of the response lengths, beyond what chance explains.
        language_shift: total variation distance (0 to 1) of the languages, beyond what chance explains.
        eval_size: the smallest relative difference of two trials' losses that the evaluation rows can resolve.
        test_leakage_exact: test rows that are training rows too.
        test_leakage_near: test rows with a training row at a Jaccard similarity of 0.8 or more.
        test_eval_leakage_exact: test rows that are evaluation rows too, by which the search has chosen.
        test_eval_leakage_near: test rows with an evaluation row at a Jaccard similarity of 0.8 or more.
    """

    enabled: bool = True

    unreadable_rows: Threshold = Threshold(warn=0, fail=0)
    empty_responses: Threshold = Threshold(warn=0, fail=0.05)
    tiny_responses: Threshold = Threshold(warn=0.1)
    truncated_rows: Threshold = Threshold(warn=0.05, fail=0.5)
    truncated_responses: Threshold = Threshold(warn=0, fail=0.1)
    mojibake: Threshold = Threshold(warn=0.005, fail=0.1)
    control_characters: Threshold = Threshold(warn=0.001, fail=0.1)
    refusals: Threshold = Threshold(warn=0.005, fail=0.2)
    boilerplate: Threshold = Threshold(warn=0.005, fail=0.2)
    repetition: Threshold = Threshold(warn=0.01, fail=0.2)
    secrets: Threshold = Threshold(warn=0, fail=0.01)
    personal_data: Threshold = Threshold(warn=0.001)

    exact_duplicates: Threshold = Threshold(warn=0.01, fail=0.5)
    conflicting_responses: Threshold = Threshold(warn=0.05)
    near_duplicates: Threshold = Threshold(warn=0.02, fail=0.5)

    leakage_exact: Threshold = Threshold(warn=0, fail=0.05)
    leakage_prompts: Threshold = Threshold(warn=0.02)
    leakage_near: Threshold = Threshold(warn=0.01, fail=0.2)
    leakage_ngrams: Threshold = Threshold(warn=0.1)
    length_shift: Threshold = Threshold(warn=0.1)
    language_shift: Threshold = Threshold(warn=0.1, fail=0.5)
    eval_size: Threshold = Threshold(warn=0.02)

    test_leakage_exact: Threshold = Threshold(warn=0, fail=0.05)
    test_leakage_near: Threshold = Threshold(warn=0.01, fail=0.2)
    test_eval_leakage_exact: Threshold = Threshold(warn=0, fail=0.05)
    test_eval_leakage_near: Threshold = Threshold(warn=0.01, fail=0.2)

    @field_validator("*", mode="before")
    @classmethod
    def _complete(cls, value: object, info: ValidationInfo) -> object:
        default = cls.model_fields[str(info.field_name)].default
        if not isinstance(default, Threshold):
            return value
        if isinstance(value, str):
            return _from_word(value, default)
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

    def threshold(self, check: str) -> Threshold:
        """The threshold of a check by its name."""
        return cast(Threshold, getattr(self, check))


def _from_word(word: str, default: Threshold) -> Threshold:
    if word == "off":
        return Threshold()
    if word == "warn":
        return Threshold(warn=default.warn)
    if word == "fail":
        return Threshold(warn=default.warn, fail=default.warn)
    raise ValueError(f"{word!r} is no threshold: give off, warn, fail or {{warn: NUMBER, fail: NUMBER}}")


#: every check, in the order of a report
CHECKS: tuple[str, ...] = tuple(name for name in QualityThresholds.model_fields if name != "enabled")


class Finding(Frozen):
    """One check: what was measured, how many rows, the first lines (`FILE:LINE`, 1-based) where it was seen.

    `not_run` comes with the reason in `message`. No message or line ever holds text of a row.
    """

    check: str
    verdict: FindingVerdict
    measure: float = 0.0
    threshold: Threshold = Threshold()
    rows: int = 0
    lines: tuple[str, ...] = ()
    message: str


class QualityReport(Frozen):
    """`statistics` are plain numbers about the data (rows, token lengths, languages).

    `train_rows` and `eval_rows` are what a trial trains on and is evaluated with, after split and limits, `test_rows`
    those of the test file (None: there is none). The digests are SHA-256 of a file, or of the names and digests of a
    folder's shards. The verdict is the worst of the findings'.
    """

    version: Literal[1] = 1
    verdict: Verdict
    findings: tuple[Finding, ...]
    statistics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    train_rows: int
    eval_rows: int
    test_rows: int | None = None
    train_sha256: Sha256
    eval_sha256: Sha256 | None = None
    test_sha256: Sha256 | None = None
    seconds: float = 0.0
