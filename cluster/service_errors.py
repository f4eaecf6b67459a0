"""What the service answers when it refuses: one line, and the field that is wrong."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cluster.service_anchors import BadFieldError, BadMediaError
from cluster.service_fits import NoSuchFitError, QueueFullError
from cluster.service_jobs import ConflictError, TooManyError
from cluster.service_runs import NoSuchRunError
from cluster.spec import ClusterError
from evolve.journal import JournalError
from evolve.space import EvolveError

REFUSALS = (401, 403, 404, 409, 413, 422, 429, 500, 503)
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (BadMediaError, 415),
    (BadFieldError, 422),
    (NoSuchRunError, 404),
    (NoSuchFitError, 404),
    (ConflictError, 409),
    (TooManyError, 429),
    (QueueFullError, 429),
    (JournalError, 500),
    (ClusterError, 422),
    (EvolveError, 422),
    (ValueError, 422),
)


def add_errors(app: FastAPI) -> None:
    """Turn what the parts raise into answers."""

    def refusal(status: int, error: str, where: str | None = None) -> JSONResponse:
        headers = {"retry-after": "10"} if status in (429, 503) else None
        return JSONResponse({"error": error, "where": where}, status, headers)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return refusal(status, " ".join(str(error).split())[:1000], getattr(error, "where", None))

    async def not_valid(_: Request, error: Exception) -> JSONResponse:
        first = (
            error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
        )
        where = ".".join(map(str, first["loc"][1:] or first["loc"]))
        return refusal(422, f"{where}: {first['msg']}", where)

    async def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101  (what it is registered for)
        return refusal(error.status_code, str(error.detail))

    async def gone(_: Request, error: Exception) -> JSONResponse:
        return refusal(400, "the client went away before its body had come")

    async def our_fault(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, f"this is a fault of the service ({type(error).__name__}): its log says more")

    app.add_exception_handler(Exception, our_fault)
    app.add_exception_handler(ClientDisconnect, gone)
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(RequestValidationError, not_valid)
    app.add_exception_handler(HTTPException, of_http)
