"""The document itself, as YAML and as JSON: what `python -m trainer run` takes as it is."""

from typing import Any

from hpo_service.exporters.base import Rendered, json_text
from hpo_service.exporters.header import header, provenance_lines
from hpo_service.exporters.values import NESTED, without_unknown
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

_USE = "Run it with: python -m trainer run THIS_FILE --output-dir FOLDER"


def render_yaml(document: TrialFile) -> Rendered:
    """YAML with a comment on where the values come from."""
    remarks = (_USE,) if provenance_lines(document) else ()
    return Rendered(
        text=header(document, *remarks) + yaml_text(_body(document)),
        values=NESTED.values(_body(document)),
        media_type="application/yaml",
        file_name=f"{_stem(document)}.yaml",
    )


def render_json(document: TrialFile) -> Rendered:
    """The same document as JSON."""
    return Rendered(
        text=json_text(_body(document)) + "\n",
        values=NESTED.values(_body(document)),
        media_type="application/json",
        file_name=f"{_stem(document)}.json",
    )


def _body(document: TrialFile) -> dict[str, Any]:
    body = without_unknown(document.model_dump(mode="json", by_alias=True))
    first = ("apiVersion", "kind", "metadata")
    return {name: body[name] for name in first} | {name: body[name] for name in body if name not in first}


def _stem(document: TrialFile) -> str:
    return "best" if document.kind == "BestParams" else "trial"
