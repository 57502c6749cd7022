"""`manifest.json` beside a delivered model: what it is, how good it is, and all that it was made from."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError
from transformers import PreTrainedTokenizerBase

from trainer.common.errors import UserError
from trainer.common.model_files import read_json
from trainer.export.judge import EvalRows, Judgement, rows_digest
from trainer.spec.base import Frozen, Sha256

MANIFEST = "manifest.json"
VariantType = Literal["merged", "f16", "q8_0", "q4_k_m", "q5_k_m", "gptq-w4a16", "awq-w4a16"]


class Quality(Frozen):
    """Perplexity on the responses of the same evaluation rows, before and after the step.

    `before` is the merged model, for a merge the base with the adapter on it.
    """

    perplexity_before: float
    perplexity_after: float
    evaluation_rows: int
    evaluation_tokens: int
    evaluation_sha256: Sha256
    prompt: str
    generated_before: str
    generated_after: str

    @classmethod
    def of(
        cls, rows: EvalRows, eval_data: str, tokenizer: PreTrainedTokenizerBase, before: Judgement, after: Judgement
    ) -> Self:
        """Two judgements on the same rows, which were read from `eval_data`."""
        return cls(
            perplexity_before=before.perplexity,
            perplexity_after=after.perplexity,
            evaluation_rows=len(rows.rows),
            evaluation_tokens=rows.tokens,
            evaluation_sha256=rows_digest(eval_data),
            prompt=_text(tokenizer, rows.prompt_ids),
            generated_before=_text(tokenizer, before.generated_ids),
            generated_after=_text(tokenizer, after.generated_ids),
        )


class LogitCheck(Frozen):
    """Adapter on the base against the merged model, on sample texts.

    `adapter_effect` is the largest change that the adapter makes to a logit of the base; `tolerance` bounds
    `max_difference` / max(1, `largest_logit`).
    """

    max_difference: float
    largest_logit: float
    adapter_effect: float
    tolerance: float


class Recipe(Frozen):
    """The tool, the versions that decide its result, and its settings."""

    tool: str
    versions: dict[str, str]
    settings: dict[str, Any]


class Sources(Frozen):
    """SHA-256 of what the artifact was made from; adapter and base are unknown for a model merged elsewhere."""

    base: Sha256 | None = None
    adapter: Sha256 | None = None
    merged: Sha256 | None = None
    calibration: Sha256 | None = None


class Manifest(Frozen):
    """What `manifest.json` holds. `size_bytes` counts every other file of the artifact; `seconds` by step."""

    manifest_version: Literal[1] = 1
    type: VariantType
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    sources: Sources
    recipe: Recipe
    quality: Quality | None
    logits: LogitCheck | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: dict[str, float]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it into the artifact's folder."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a delivered model, None where there is none. Raises UserError if it cannot be understood."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return Manifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError as error:
        raise UserError(
            f"{folder / MANIFEST} is no manifest of a delivered model: {error.errors()[0]['msg']}"
        ) from error


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text
