"""Suggest the spec of a study from its model, its data and what the project has learnt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from hpo_service.core import study_rules
from hpo_service.services.data import preflight
from hpo_service.services.data.preflight import Inputs
from hpo_service.services.studies.schemas import Document, PastDocument
from hpo_service.services.studies.warm_start import past_documents, with_past
from hpo_service.spec import PastStudy, ResolvedStudy, estimate, parse_spec, resolve
from hpo_service.spec.presets import load_preset
from hpo_service.spec.suggestion import Bill, fitting_preset, narrowed, written
from hpo_service.storage.queries import attempts, studies
from trainer.spec import AUTO

_EXAMPLES_ABOVE_EXPECTED = 1.5
_NAME_CHARACTERS = 48
_DTYPE_REASON = (
    "bfloat16 on GPUs that have it, which is several times as fast as float32 there, and float32 on CPUs; the worker "
    "that takes the first slice says it for all trials"
)


class SuggestRequest(BaseModel):
    """Model and data to suggest a study for."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=512, description="Folder of the base model.")
    data: str = Field(max_length=512, description="Rows to train on.")
    eval: str | None = Field(default=None, max_length=512, description="Rows to evaluate on; null holds some out.")
    name: str | None = Field(default=None, max_length=63, description="Name of the study; null makes one up.")


class SuggestionDocument(Document):
    """A spec that can be posted as it is."""

    spec: dict[str, Any]
    text: str
    """The same as YAML, with the reason of every choice."""
    expected_examples: int
    expected_seconds: float | None
    """Worker seconds at the speed of earlier studies of this model; null if there are none."""
    expected_usd: float | None
    past: list[PastDocument]
    """Earlier studies that it was made from and that the study would learn from."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request whose files were looked at."""

    request: SuggestRequest
    inputs: Inputs
    preset: str
    why: str


def look(request: SuggestRequest, roots: Sequence[Path]) -> Asked:
    """Look at the files; needs no database. Raises InvalidSpec if they cannot be used."""
    inputs = preflight.inspect(parse_spec(_base(request, request.name or "suggested", "standard")), roots)
    preset = fitting_preset(inputs.traits, inputs.train_rows)
    return Asked(request=request, inputs=inputs, preset=preset.value, why=preset.why)


def suggest(session: Session, project_id: int, asked: Asked, usd_per_gpu_hour: float) -> SuggestionDocument:
    """A spec for what was asked, from what is known now."""
    name = asked.request.name or _free_name(session, project_id, asked.request)
    spec = _base(asked.request, name, asked.preset)
    wide = with_past(session, project_id, _resolved(spec, asked.inputs))
    reasons = {"preset": asked.why, "model.dtype": _DTYPE_REASON, **_search_reasons(wide.past)}
    choices = narrowed(load_preset(asked.preset).document["space"], wide.past)
    if choices:
        spec["space"] = {key: choice.value for key, choice in choices.items()}
        reasons |= {f"space.{key}": choice.why for key, choice in choices.items()}
    resolved = _resolved(spec, asked.inputs)
    bill = _bill(session, project_id, resolved, usd_per_gpu_hour)
    spec["budget"] = {
        "max_trials": resolved.budget.max_trials,
        "max_examples": round(_EXAMPLES_ABOVE_EXPECTED * bill.examples),
    }
    reasons["budget.max_trials"] = f"the preset's number of trials; {bill.sentence}"
    reasons["budget.max_examples"] = "half as much again as is expected, so that the bill has an end"
    return SuggestionDocument(
        spec=spec,
        text=written(spec, reasons),
        expected_examples=bill.examples,
        expected_seconds=bill.seconds,
        expected_usd=bill.usd,
        past=past_documents([known.model_dump() for known in wide.past], {}),
    )


def _base(request: SuggestRequest, name: str, preset: str) -> dict[str, Any]:
    data = {"train": request.data, **({} if request.eval is None else {"eval": request.eval})}
    return {
        "metadata": {"name": name},
        "preset": preset,
        "model": {"path": request.model, "dtype": AUTO},
        "data": data,
        "search": {"strategy": "freeze_thaw", "warm_start": "auto"},
    }


def _resolved(spec: dict[str, Any], inputs: Inputs) -> ResolvedStudy:
    return resolve(
        parse_spec(spec),
        model_path=inputs.model_path,
        train=inputs.train,
        eval=inputs.eval,
        train_rows=inputs.train_rows,
        eval_rows=inputs.eval_rows,
        traits=inputs.traits,
    )


def _search_reasons(past: Sequence[PastStudy]) -> dict[str, str]:
    told = ", ".join(f"{known.study} (similarity {known.similarity:.2f})" for known in past)
    return {
        "search.strategy": "it pauses trials instead of dropping them and takes what promises most per cost",
        "search.warm_start": f"learns from {told}" if told else "no earlier study of this project resembles it yet",
    }


def _bill(session: Session, project_id: int, resolved: ResolvedStudy, usd_per_gpu_hour: float) -> Bill:
    examples = estimate(resolved).expected_examples
    rate = attempts.seconds_per_example(session, project_id, resolved.model.path)
    seconds = None if rate is None else rate * examples
    priced = seconds is not None and usd_per_gpu_hour > 0
    gpus = resolved.resources.gpus_per_trial
    usd = study_rules.cost_usd(seconds, gpus, usd_per_gpu_hour) if priced and seconds is not None else None
    return Bill(examples=examples, seconds=seconds, usd=usd)


def _free_name(session: Session, project_id: int, request: SuggestRequest) -> str:
    parts = [Path(path).name.split(".")[0] for path in (request.model, request.data)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))[:_NAME_CHARACTERS].strip("-._") or "study"
    number = 1
    while studies.is_taken(session, project_id, name if number == 1 else f"{name}-{number}"):
        number += 1
    return name if number == 1 else f"{name}-{number}"
