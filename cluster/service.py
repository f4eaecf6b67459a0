"""The HTTP service: `build_app` joins its parts; `cluster.service_server.serve` runs it.

Read `service_models` for what it takes and gives, `service_gate` for who may speak to it, `service_routes` for its
paths, `service_runs` for where its answers come from. It holds no state of its own: journals, job records and the
folders of the fits are all there is.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from cluster.service_errors import REFUSALS, add_errors
from cluster.service_examples import add_examples
from cluster.service_gate import Audit, Gate
from cluster.service_models import Refusal
from cluster.service_parts import Actions, Service
from cluster.service_routes import add_routes
from cluster.service_settings import ServiceSettings

__all__ = ["Actions", "Service", "ServiceSettings", "build_app"]


def build_app(settings: ServiceSettings, actions: Actions) -> FastAPI:
    """The application, its limits around it: for uvicorn, and for tests.

    Args:
        settings: How it runs.
        actions: What it can't do by itself.
    """
    service = Service(settings, actions)

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        await service.fits.start()
        yield
        await service.fits.close()

    app = FastAPI(
        title="Beagle",
        summary="Evolutions of detectors and fits of anchors, over HTTP.",
        version=version("beagle-evolve"),
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=living,
        responses={status: {"model": Refusal} for status in REFUSALS},
    )
    app.state.service = service
    add_routes(app, service)
    add_errors(app)
    audit = Audit(settings.runs / ".service" / "audit.jsonl")
    app.add_middleware(Gate, settings=settings, audit=audit, count=service.metrics.count)
    _complete_openapi(app, with_token=settings.token is not None)
    return app


def _complete_openapi(app: FastAPI, *, with_token: bool) -> None:
    """Say in OpenAPI that a token is needed, where it is, and give examples; made once."""
    made: Callable[[], dict[str, Any]] = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            add_examples(schema)
            if with_token:
                schemes = {"token": {"type": "http", "scheme": "bearer"}}
                schema.setdefault("components", {})["securitySchemes"] = schemes
                schema["security"] = [{"token": []}]
        return made()

    app.openapi = complete  # type: ignore[method-assign]
