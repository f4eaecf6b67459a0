"""Running the application: uvicorn, and what it lacks against slow clients."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cluster.service_settings import ServiceSettings
from cluster.spec import ClusterError


class _HastyProtocol(H11Protocol):
    """Closes a connection whose request does not get its head across in time, which uvicorn itself would wait for."""

    header_seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry: asyncio.TimerHandle | None = self.loop.call_later(self.header_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle = vars(self).get("cycle")  # None before the first request
        awaited = bool(self.conn.trailing_data[0]) and (cycle is None or cycle.response_complete)
        if awaited and self._hurry is None:
            self._hurry = self.loop.call_later(self.header_seconds, self.transport.close)
        elif not awaited and self._hurry is not None and cycle is not None:
            self._hurry.cancel()
            self._hurry = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """One server, which tells its address once it answers."""

    def __init__(self, app: FastAPI, settings: ServiceSettings, ready: Callable[[str], None]) -> None:
        """Nothing is listened to yet.

        Args:
            app: What `cluster.service.build_app` gave.
            settings: The same.
            ready: Told the address.
        """
        protocol = type("HastyProtocol", (_HastyProtocol,), {"header_seconds": settings.header_seconds})
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=1 << 15,
            lifespan="on",
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Listen, and tell where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def serve(app: FastAPI, settings: ServiceSettings, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; arguments as `Server` has them.

    Raises:
        ClusterError: Nothing can listen there.
    """
    try:
        Server(app, settings, ready).run()
    except SystemExit as error:  # how uvicorn says that it can't listen
        raise ClusterError(
            f"nothing can listen at {settings.host}:{settings.port}: choose another --port"
        ) from error
