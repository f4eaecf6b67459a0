"""Anchor fits of the service: a fair queue on disk, a process for each fit.

Each fit is a folder that holds its request, its upload, and its result at the end. So a service that is killed takes
up again what waited or ran, and none is lost.
"""

import asyncio
import itertools
import json
import logging
import os
import re
import shutil
import sys
import time
import uuid
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

from cluster.fit_worker import ERROR, REQUEST, RESULT, UPLOAD
from cluster.service_models import Fit, FitResult
from cluster.service_settings import ServiceSettings
from cluster.spec import ClusterError
from evolve.aside import write_aside

logger = logging.getLogger(__name__)

STARTS = "starts"
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_STARTS = 3
_KEPT_SECONDS = 7 * 86_400.0
_HAND_SECONDS = 3600.0


class QueueFullError(ClusterError):
    """As many fits wait as may."""


class NoSuchFitError(ClusterError):
    """There is no fit of this id, or it was so long ago that it was removed."""


class FitQueue:
    """Fits that wait, run and are done. Of one event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Nothing runs before `start`."""
        self._settings = settings
        self._folder = settings.runs / ".service" / "fits"
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()  # by client; the first has the next turn
        self._changed: dict[str, asyncio.Event] = {}  # of fits that wait or run
        self._running: set[str] = set()
        self._coming = 0
        self._more = asyncio.Condition()
        self._workers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take up what an earlier service left, and begin to work."""
        for fit_id, client in await asyncio.to_thread(self._left):
            self._line_up(fit_id, client)
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._settings.fits_at_once)]

    async def close(self) -> None:
        """End the processes; their fits are taken up by the next service."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    async def submit(self, client: str, request: dict[str, Any], upload: Path | None = None) -> str:
        """Line up a fit.

        Args:
            client: Whose it is: clients take turns.
            request: What `cluster.fit_worker` reads.
            upload: A file that is moved to it.

        Returns:
            Its id.

        Raises:
            QueueFullError: As many wait as may.
        """
        waiting = self.waiting + self._coming
        if waiting >= self._settings.fits_waiting:
            raise QueueFullError(f"{waiting} fits wait already: try again later")
        fit_id = uuid.uuid4().hex
        self._coming += 1  # its place is taken while it is written down, when others come
        try:
            await asyncio.to_thread(
                self._keep, fit_id, {**request, "client": client, "time": time.time()}, upload
            )
        finally:
            self._coming -= 1
        self._line_up(fit_id, client)
        async with self._more:
            self._more.notify()
        return fit_id

    def look(self, fit_id: str) -> Fit:
        """How a fit stands.

        Raises:
            NoSuchFitError: There is none.
        """
        if not _ID.fullmatch(fit_id) or not (self._folder / fit_id / REQUEST).is_file():
            raise NoSuchFitError("there is no such fit; results are kept for a week")
        folder = self._folder / fit_id
        if (folder / RESULT).is_file():
            result = FitResult.model_validate_json((folder / RESULT).read_bytes())
            return Fit(id=fit_id, state="done", position=None, error=None, result=result)
        if (folder / ERROR).is_file():
            error = json.loads((folder / ERROR).read_bytes())["error"]
            return Fit(id=fit_id, state="failed", position=None, error=error, result=None)
        position = self._position(fit_id)
        return Fit(
            id=fit_id,
            state="running" if position is None else "waiting",
            position=position,
            error=None,
            result=None,
        )

    async def wait(self, fit_id: str, seconds: float) -> Fit:
        """How a fit stands at its end, or after so many seconds. Raises as `look`."""
        changed = self._changed.get(fit_id)
        if changed is not None and seconds > 0:
            try:
                await asyncio.wait_for(changed.wait(), seconds)
            except TimeoutError:
                logger.debug("fit %s takes longer than %g s", fit_id, seconds)
        return await asyncio.to_thread(self.look, fit_id)

    def _left(self) -> list[tuple[str, str]]:
        """Fits without an end, the oldest first; those of long ago are removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for folder in self._folder.iterdir():
            if not _ID.fullmatch(
                folder.name
            ):  # its service was killed as it came in, or another has it in hand
                if time.time() - folder.stat().st_mtime > _HAND_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                request = json.loads((folder / REQUEST).read_bytes())
                ended = (folder / RESULT).exists() or (folder / ERROR).exists()
            except (OSError, ValueError) as error:
                logger.warning("%s: a fit that can't be read is left out (%s)", folder, error)
                continue
            if not ended:
                found.append((float(request["time"]), folder.name, str(request["client"])))
            elif time.time() - float(request["time"]) > _KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        return [(fit_id, client) for _, fit_id, client in sorted(found)]

    def _keep(self, fit_id: str, request: dict[str, Any], upload: Path | None) -> None:
        # Put together beside, so that a folder under its own name is whole.
        aside = self._folder / f".{fit_id}"
        aside.mkdir(parents=True)
        if upload is not None:
            shutil.move(upload, aside / UPLOAD)
        write_aside(aside / REQUEST, json.dumps(request))
        aside.rename(self._folder / fit_id)

    def _line_up(self, fit_id: str, client: str) -> None:
        self._changed[fit_id] = asyncio.Event()
        self._waiting.setdefault(client, deque()).append(fit_id)

    def _position(self, fit_id: str) -> int | None:
        """How many fits come before it, clients taking turns; None where it does not wait."""
        rounds = itertools.zip_longest(*self._waiting.values())
        order = [each for turn in rounds for each in turn if each is not None]
        return order.index(fit_id) if fit_id in order else None

    def _next(self) -> str:
        """The next fit of the client whose turn it is, who then goes to the end of the line."""
        client, fits = next(iter(self._waiting.items()))
        fit_id = fits.popleft()
        if fits:
            self._waiting.move_to_end(client)
        else:
            del self._waiting[client]
        return fit_id

    async def _work(self) -> None:
        while True:
            async with self._more:
                await self._more.wait_for(lambda: bool(self._waiting))
                fit_id = self._next()
            self._running.add(fit_id)
            try:
                await self._run(self._folder / fit_id)
            except OSError as error:  # the disk is full, say: it is taken up by the next service
                logger.error("fit %s can't be run: %s", fit_id, error)
            finally:
                self._running.discard(fit_id)
                self._changed.pop(fit_id).set()

    async def _run(self, folder: Path) -> None:
        with (folder / STARTS).open("ab") as file:
            file.write(b".")
        if (folder / STARTS).stat().st_size > _MOST_STARTS:
            write_aside(
                folder / ERROR, json.dumps({"error": f"it was begun {_MOST_STARTS} times and never ended"})
            )
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cluster.fit_worker", str(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), self._settings.fit_seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            error = f"it took longer than {self._settings.fit_seconds:g} s"
            write_aside(folder / ERROR, json.dumps({"error": error}))
        except asyncio.CancelledError:
            process.kill()
            raise
        else:
            if not (folder / RESULT).exists() and not (folder / ERROR).exists():
                logger.error(
                    "fit %s: exit code %s: %s", folder.name, process.returncode, said.decode()[-2000:]
                )
                error = f"its process ended with exit code {process.returncode}"
                write_aside(folder / ERROR, json.dumps({"error": error}))
