"""A file of a Hydra configuration group, such as `conf/lora/best.yaml` for `lora=best`."""

import re
from typing import Any

from hpo_service.exporters.base import Rendered
from hpo_service.exporters.header import header
from hpo_service.exporters.values import NESTED, nested_values
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

_INTERPOLATION = re.compile(r"(\\*)\$\{")


def render_hydra(document: TrialFile) -> Rendered:
    """Everything, under the document's own names. There is no `@package` line: the default is the group's name."""
    body = _escaped(nested_values(document))
    return Rendered(
        text=header(document) + yaml_text(body),
        values=NESTED.values(body),
        media_type="application/yaml",
        file_name="best.yaml",
    )


def _escaped(value: Any) -> Any:  # noqa: ANN401
    r"""Text that looks like an interpolation, `${...}`, is escaped: `\${...}`; backslashes before it count double."""
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return _INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value
