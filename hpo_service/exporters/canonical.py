"""The document itself, as YAML and as JSON: what `python -m trainer run` takes as it is."""

import io
import re
from typing import Any

from ruamel.yaml import YAML, ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from hpo_service.exporters.base import Rendered, json_text, plain_float
from trainer.spec import TrialFile

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class _OldReaders(SafeRepresenter):
    """Writes what YAML 1.1 readers take for the same value: floats without an exponent, `"no"` in quotes."""


def _represent_text(representer: SafeRepresenter, value: str) -> ScalarNode:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


def _represent_float(representer: SafeRepresenter, value: float) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:float", plain_float(value))


_OldReaders.add_representer(float, _represent_float)
_OldReaders.add_representer(str, _represent_text)


def render_yaml(document: TrialFile) -> Rendered:
    """YAML with a comment on where the values come from."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _OldReaders
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_body(document), stream)
    return Rendered(
        text=_header(document) + stream.getvalue(),
        media_type="application/yaml",
        file_name=f"{_stem(document)}.yaml",
    )


def render_json(document: TrialFile) -> Rendered:
    """The same document as JSON."""
    return Rendered(
        text=json_text(_body(document)) + "\n",
        media_type="application/json",
        file_name=f"{_stem(document)}.json",
    )


def _body(document: TrialFile) -> dict[str, Any]:
    body = document.model_dump(mode="json", by_alias=True)
    first = ("apiVersion", "kind", "metadata")
    return {name: body[name] for name in first} | {name: body[name] for name in body if name not in first}


def _stem(document: TrialFile) -> str:
    return "best" if document.kind == "BestParams" else "trial"


def _header(document: TrialFile) -> str:
    facts = document.provenance
    if "study" not in facts:
        return ""
    about = f"# Trial {facts.get('trial')} of study {facts['study']}: {_reached(document)}\n"
    return (
        about
        + f"# Exported {facts.get('date')} by {facts.get('generator')}\n"
        + "# Run it with: python -m trainer run THIS_FILE --output-dir FOLDER\n"
    )


def _reached(document: TrialFile) -> str:
    """The trial's loss; of a confirmed one both the mean over new seeds and what a run of this file repeats."""
    facts = document.provenance
    metric = facts.get("metric")
    if "confirmed_loss" not in facts:
        provisional = " (provisional: not trained to its end)" if facts.get("provisional") else ""
        return f"{metric} {facts.get('loss')}{provisional}"
    seeds = "one new seed" if facts["confirmed_seeds"] == 1 else f"the mean over {facts['confirmed_seeds']} new seeds"
    said = f"confirmed {metric} {facts['confirmed_loss']}, {seeds}"
    if "searched_loss" not in facts:
        return said
    said += f"\n# In the search, with seed {document.training.seed}: {metric} {facts['searched_loss']} "
    if facts["searched_examples"] == facts["examples"]:
        return said + "at its end; that is what a run of this file repeats"
    return said + f"after {facts['searched_examples']} of {facts['examples']} examples"
