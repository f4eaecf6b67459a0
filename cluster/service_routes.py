"""The paths of the service: each is a few lines that ask the part which knows."""

import asyncio
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from cluster.service_anchors import read_fit_request
from cluster.service_examples import FIT_ID
from cluster.service_jobs import TooManyError
from cluster.service_metrics import CONTENT_TYPE
from cluster.service_models import (
    Choices,
    Evolution,
    Evolutions,
    Fit,
    FitRequest,
    Format,
    Health,
    NewEvolution,
    Ready,
    Refusal,
    Started,
    Stopping,
    Summary,
    TrialDetail,
)
from cluster.service_parts import Service

RunId = Annotated[str, InPath(max_length=255, description="Name of the run's folder.", examples=["night"])]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the end of the fit.")]


def add_routes(app: FastAPI, service: Service) -> None:
    """Add all paths."""
    _add_looks(app, service)
    _add_evolutions(app, service)
    _add_takeaways(app, service)
    _add_anchors(app, service)
    _add_page(app)


def _json(text: bytes, status: int = 200) -> Response:
    return Response(text, status, media_type="application/json")


def _add_looks(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["service"], response_model=Health)
    async def health() -> Health:
        """The service answers."""
        return Health(status="ok", version=app.version)

    @app.get("/ready", tags=["service"], response_model=Ready, responses={503: {"model": Ready}})
    def ready() -> Response:
        """What the service needs is there: 200, else 503."""
        found = service.ready()
        return _json(found.model_dump_json().encode(), 200 if found.ready else 503)

    @app.get("/choices", tags=["service"], response_model=Choices)
    def choices() -> Choices:
        """What requests may name: places that evolutions may be handed over to, built-in models, searches."""
        return service.choices()

    @app.get("/metrics", tags=["service"], response_class=Response)
    def metrics() -> Response:
        """Counters for Prometheus."""
        states: dict[str, int] = {}
        for each in Evolutions.model_validate_json(service.runs.listed()).evolutions:
            states[each.state] = states.get(each.state, 0) + 1
        return Response(service.metrics.text(states), media_type=CONTENT_TYPE)


def _add_evolutions(app: FastAPI, service: Service) -> None:
    runs = service.runs

    @app.get("/evolutions", tags=["evolutions"], response_model=Evolutions)
    def list_evolutions() -> Response:
        """All evolutions, the newest first; the list is up to a second old."""
        return _json(runs.listed())

    @app.post("/evolutions", tags=["evolutions"], response_model=Started, status_code=201)
    def start_evolution(new: NewEvolution, request: Request) -> Started:
        """Start an evolution as a job: its run folder bears its name."""
        request.state.what = {"name": new.name, "data": new.data, "model": new.model, "to": new.to}
        return Started(id=new.name, job=service.starter.start(new))

    @app.get("/evolutions/{run_id}", tags=["evolutions"], response_model=Evolution)
    def show_evolution(run_id: RunId, request: Request) -> Response:
        """One evolution with its genes, trials, winner and anchors. `If-None-Match` spares what is known."""
        text = runs.evolution(run_id)
        tag = f'"{hash(text) & 0xFFFFFFFFFFFF:x}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(text, media_type="application/json", headers=headers)

    @app.get("/evolutions/{run_id}/trials/{trial}", tags=["evolutions"], response_model=TrialDetail)
    def show_trial(run_id: RunId, trial: Annotated[int, InPath(ge=0, le=10**9, examples=[0])]) -> Response:
        """One trial with its learning curve."""
        return _json(runs.trial(run_id, trial))

    @app.get(
        "/evolutions/{run_id}/events",
        tags=["evolutions"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def watch_evolution(
        run_id: RunId, last_event_id: Annotated[str | None, Header(max_length=20)] = None
    ) -> Response:
        """Server-sent events: summary, trial, epoch, end. `Last-Event-ID` goes on behind a byte of the journal."""
        await asyncio.to_thread(runs.summary, run_id)  # refuses what is not there
        if service.streams >= service.settings.streams:
            raise TooManyError(
                f"{service.streams} clients watch already: look at /evolutions/{run_id} instead"
            )
        known = last_event_id or ""
        offset = int(known) if known.isascii() and known.isdecimal() else None
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            service.stream(run_id, offset), media_type="text/event-stream", headers=headers
        )

    @app.post("/evolutions/{run_id}/stop", tags=["evolutions"], response_model=Stopping, status_code=202)
    def stop_evolution(run_id: RunId) -> Stopping:
        """Ask an evolution to stop: its trials end their epoch and keep their checkpoints."""
        asked = service.starter.stop(run_id)
        summary = Summary.model_validate_json(runs.summary(run_id))
        return Stopping(id=run_id, state=summary.state, asked=asked)


def _add_takeaways(app: FastAPI, service: Service) -> None:
    @app.get("/evolutions/{run_id}/report", tags=["evolutions"], response_class=HTMLResponse)
    def show_report(run_id: RunId) -> Response:
        """The report, as of now."""
        # The page has a policy of its own, by the hashes of its script and style.
        return HTMLResponse(
            service.files.report(run_id), headers={"content-security-policy": "frame-ancestors 'none'"}
        )

    @app.get(
        "/evolutions/{run_id}/export",
        tags=["evolutions"],
        response_class=FileResponse,
        responses={200: {"content": {"application/zip": {}}}},
    )
    def export_evolution(
        run_id: RunId, target: Annotated[Format | None, Query(alias="format", examples=["yolov5"])] = None
    ) -> Response:
        """What production trains from, as a zip."""
        packed = service.files.export(run_id, target)
        return FileResponse(
            packed,
            media_type="application/zip",
            filename=f"{run_id}-{target or 'export'}.zip",
            background=BackgroundTask(shutil.rmtree, packed.parent, ignore_errors=True),
        )


def _add_anchors(app: FastAPI, service: Service) -> None:
    schema = FitRequest.model_json_schema()
    form = {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "csv, txt, xml, json or zip."},
            **{name: value for name, value in schema["properties"].items() if name != "path"},
        },
    }
    body = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}

    @app.post(
        "/anchors",
        tags=["anchors"],
        response_model=Fit,
        responses={202: {"model": Fit}, 408: {"model": Refusal}, 415: {"model": Refusal}},
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def fit_anchors(request: Request, wait: Wait = 20.0) -> Response:
        """Fit anchors to uploaded labels, or to data on the service's machine: 200 when done, 202 while it waits."""
        words, upload = await read_fit_request(request, service.settings)
        request.state.what = {key: words[key] for key in ("path", "upload") if key in words}
        client = request.client.host if request.client else "-"
        try:
            fit_id = await service.fits.submit(client, words, upload)
        finally:
            if upload is not None:
                upload.unlink(missing_ok=True)  # refused: it was not taken
        return _fit(await service.fits.wait(fit_id, wait))

    @app.get("/anchors/{fit_id}", tags=["anchors"], response_model=Fit, responses={202: {"model": Fit}})
    async def look_at_fit(
        fit_id: Annotated[str, InPath(max_length=64, examples=[FIT_ID])], wait: Wait = 0.0
    ) -> Response:
        """How a fit stands: 200 when it has ended, 202 while it waits or runs."""
        return _fit(await service.fits.wait(fit_id, wait))


def _fit(fit: Fit) -> Response:
    return _json(fit.model_dump_json().encode(), 202 if fit.state in ("waiting", "running") else 200)


def _add_page(app: FastAPI) -> None:
    folder = Path(str(files("cluster") / "web"))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(folder / "index.html", media_type="text/html")

    app.mount("/static", StaticFiles(directory=folder), name="static")
