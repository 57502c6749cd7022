"""YAML that every reader takes for the same values, YAML 1.1 readers too."""

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML, ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from hpo_service.exporters.base import plain_float

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class _OldReaders(SafeRepresenter):
    """Floats without an exponent, `"no"` in quotes, text of several lines as a block, no aliases."""

    def ignore_aliases(self, _data: Any) -> bool:  # noqa: ANN401
        """Whatever occurs twice is written twice."""
        return True


def _represent_text(representer: SafeRepresenter, value: str) -> ScalarNode:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    block = value.endswith("\n") and _is_block(value)
    style = "|" if block else None if plain else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _is_block(value: str) -> bool:
    """Whether every line is printable and none is blank at its ends, so that a block says it exactly."""
    return all(line.isprintable() and line == line.rstrip() for line in value.split("\n")) and not value[0].isspace()


def _represent_float(representer: SafeRepresenter, value: float) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:float", plain_float(value))


_OldReaders.add_representer(float, _represent_float)
_OldReaders.add_representer(str, _represent_text)


def yaml_text(body: Mapping[str, Any]) -> str:
    """The mapping in block style, its keys in their order."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _OldReaders
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(dict(body), stream)
    return stream.getvalue()
