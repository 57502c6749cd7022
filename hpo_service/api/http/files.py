"""Exported files as answers."""

from typing import Annotated, Any

from fastapi import Query, Response

from hpo_service.exporters import FORMATS, Rendered

ExportFormat = Annotated[str, Query(description=f"One of {', '.join(FORMATS)}.", max_length=32)]
Strict = Annotated[
    bool, Query(description="Refuse (422) a format that has no key for something that matters, instead of dropping it.")
]
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {"application/yaml": {}, "application/json": {}, "text/plain": {}},
    }
}


def file_response(file: Rendered, headers: dict[str, str] | None = None) -> Response:
    """A download, with what the format has no key for in `X-Dropped`."""
    known = {
        "Content-Disposition": f'attachment; filename="{file.file_name}"',
        "X-Dropped": ", ".join(file.dropped),
    }
    return Response(file.text, media_type=file.media_type, headers=known | (headers or {}))
