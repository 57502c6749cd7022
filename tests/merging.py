"""What tests of merging share: the values of exports, and files as teams write them."""

from pathlib import Path
from typing import Any

from hpo_service.cli.merge import Setting
from hpo_service.core.export_groups import Group
from hpo_service.exporters import render
from hpo_service.services.common.exported_values import exported_values
from tests.exported import document

FILES = Path(__file__).parent / "unit" / "cli" / "merge" / "files"


def settings(format: str, *groups: Group, **changes: Any) -> list[Setting]:
    """What a format says of the hyperparameters, and of further groups."""
    values = render(format, document(**changes)).values
    assert values is not None
    wanted = (Group.HYPERPARAMETERS, *groups)
    return [Setting(path=one.path, value=one.value, rivals=one.rivals) for one in values if one.group in wanted]


def answer(format: str, **changes: Any) -> dict[str, Any]:
    """What the service answers of the values of an export."""
    return exported_values(format, document(**changes), strict=False).model_dump(mode="json")
