"""The values of an export one by one, for those who merge them into files of their own."""

from typing import Any

from hpo_service import exporters
from hpo_service.core.errors import InvalidRequest
from hpo_service.core.export_groups import Group
from hpo_service.exporters.header import origin_lines
from hpo_service.services.common.schemas import Document
from trainer.spec import TrialFile


class ExportedValueDocument(Document):
    """One value of a file."""

    path: list[str]
    """Its keys from the top of the file."""
    value: Any
    group: Group
    """What it is about: only hyperparameters were searched."""
    rivals: list[str]
    """Keys of the target beside it that decide instead where a file has them."""


class BatchSplitDocument(Document):
    """How the format says an effective batch: as examples per device, times accumulation, times devices."""

    effective: int
    """Examples of an optimizer step."""
    per_device: str
    accumulation: str


class ExportedValuesDocument(Document):
    """What a file of the format would hold."""

    format: str
    promotion: str | None
    """`NAME@VERSION`, if it is one."""
    origin: list[str]
    """Where the values come from, a line each."""
    values: list[ExportedValueDocument]
    batch: BatchSplitDocument | None
    """null where the effective batch is a value of its own, or the format cannot say it."""
    dropped: list[str]
    """What the format has no key for."""


def exported_values(
    format: str, document: TrialFile, *, strict: bool, promotion: str | None = None
) -> ExportedValuesDocument:
    """The document's values in a format.

    Raises:
        InvalidRequest: there is no such format, or its files cannot be taken apart.
        NotExpressible: `strict`, and the format has no key for something that matters.
    """
    file = exporters.render(format, document, strict=strict)
    if file.values is None:
        raise InvalidRequest(
            f"a file of format {format} is a whole, its values cannot be merged into another one: write it with -o and "
            "name its folder there, or merge format env or helm under a key."
        )
    batch = file.batch
    return ExportedValuesDocument(
        format=format,
        promotion=promotion,
        origin=origin_lines(document),
        values=[
            ExportedValueDocument(path=list(one.path), value=one.value, group=one.group, rivals=list(one.rivals))
            for one in file.values
        ],
        batch=batch
        and BatchSplitDocument(effective=batch.effective, per_device=batch.per_device, accumulation=batch.accumulation),
        dropped=list(file.dropped),
    )
