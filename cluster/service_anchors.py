"""What a request for anchors says: a form with a file, or JSON with a path."""

import json
import tempfile
from pathlib import Path
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from cluster.service_models import FitRequest
from cluster.service_settings import ServiceSettings
from cluster.service_uploads import SUFFIXES
from cluster.spec import ClusterError
from model.spec import zoo_names

_UPLOADED = "upload"  # stands for the path of a form, which has none
_PIECE = 1 << 20
_FIELDS = 8


class BadFieldError(ClusterError):
    """A field is wrong.

    Attributes:
        where: Its name.
    """

    def __init__(self, message: str, where: str | None) -> None:
        super().__init__(message)
        self.where = where


class BadMediaError(ClusterError):
    """A body is neither a form nor JSON."""


async def read_fit_request(request: Request, settings: ServiceSettings) -> tuple[dict[str, Any], Path | None]:
    """What `cluster.fit_worker` is to do, and the uploaded file, which is then the caller's.

    Raises:
        BadFieldError: A field is wrong, missing, or names what may not be read.
        BadMediaError: The body is of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request, settings)
    if kind != "application/json":
        raise BadMediaError("the body must be application/json or multipart/form-data")
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadFieldError("the body is no JSON", "body") from error
    asked = _checked(fields)
    try:
        path = asked.path if asked.path == "digits" else str(settings.allowed(asked.path))
    except ClusterError as error:
        raise BadFieldError(str(error), "path") from error
    return {**asked.model_dump(), "path": path}, None


async def _from_form(request: Request, settings: ServiceSettings) -> tuple[dict[str, Any], Path]:
    async with request.form(max_files=1, max_fields=_FIELDS, max_part_size=1 << 12) as form:
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise BadFieldError("a file must be sent as the field `file`", "file")
        name = Path((upload.filename or "").replace("\\", "/")).name[
            :200
        ]  # a name, whatever path it came with
        if not name.lower().endswith(SUFFIXES) or not name.isprintable():
            raise BadFieldError(f"the file's name must end in one of {', '.join(SUFFIXES)}", "file")
        fields: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
        if "path" in fields:
            raise BadFieldError("a form has a file and no path: send JSON for a path", "path")
        asked = _checked({**{key: _number(value) for key, value in fields.items()}, "path": _UPLOADED})
        with tempfile.NamedTemporaryFile(prefix="beagle-upload-", delete=False) as file:
            while piece := await upload.read(_PIECE):
                file.write(piece)
    words = {**asked.model_dump(exclude={"path"}), "upload": name, "expanded_bytes": settings.expanded_bytes}
    return words, Path(file.name)


def _checked(fields: object) -> FitRequest:
    try:
        asked = FitRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise BadFieldError(f"{where}: {first['msg']}", where) from error
    if asked.model not in zoo_names():
        raise BadFieldError(f"there is no model {asked.model!r} built in", "model")
    return asked


def _number(text: str) -> int | float | str:
    """A form knows text alone; what looks like a number is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
