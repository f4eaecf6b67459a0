"""Server-sent events of an evolution. The journal is the buffer: a slow client costs a number, however far behind."""

import asyncio
import time
from collections.abc import AsyncIterator

from cluster.service_models import Summary
from cluster.service_runs import Runs

LOOK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
_ALL_TO_COME = -1  # no place in a journal: what is new begins at its end


async def events(runs: Runs, run_id: str, offset: int | None) -> AsyncIterator[bytes]:
    """The stream: a summary first, then what is new, and `end` once nobody drives the run any more.

    Events are `summary` (a `Summary`), `trial` (a `TrialInfo`), `epoch` ({trial, epoch, metrics}) and `end` (a
    `Summary`). The id of a summary is the byte of the journal up to which the client then knows everything.

    Args:
        runs: Where it is looked up.
        run_id: The run's.
        offset: Byte of the journal that the client knows already, as `Last-Event-ID`; None for all that is to come.
    """
    place = _ALL_TO_COME if offset is None else offset
    told: Summary | None = None
    spoke_at = time.monotonic()
    while True:
        summary = Summary.model_validate_json(await asyncio.to_thread(runs.summary, run_id))
        news: list[tuple[str, str]] = []
        if summary.state not in ("waiting", "failed"):
            news, place = await asyncio.to_thread(runs.news, run_id, place)
        for kind, data in news:
            yield _event(kind, data)
        if news or summary != told:
            yield _event("summary", summary.model_dump_json(), place)
            told, spoke_at = summary, time.monotonic()
            continue  # there may be more
        if summary.state not in ("waiting", "running"):
            yield _event("end", summary.model_dump_json(), place)
            return
        if time.monotonic() - spoke_at > KEEP_ALIVE_SECONDS:
            yield b": still here\n\n"
            spoke_at = time.monotonic()
        await asyncio.sleep(LOOK_SECONDS)


def _event(kind: str, data: str, offset: int = _ALL_TO_COME) -> bytes:
    number = "" if offset < 0 else f"id: {offset}\n"
    return f"event: {kind}\n{number}data: {data}\n\n".encode()
