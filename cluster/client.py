"""Speaking to `beagle serve` from Python or the command: its paths as functions, its answers as the same models."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from cluster.service_models import (
    Choices,
    Evolution,
    Evolutions,
    Fit,
    FitResult,
    Health,
    NewEvolution,
    Started,
    Stopping,
    TrialDetail,
)
from cluster.service_settings import is_loopback
from cluster.spec import ClusterError

Model = TypeVar("Model", bound=BaseModel)

TIMEOUT_S = 60.0
WAIT_S = 30.0  # that one look at a fit waits for its end
SILENCE_S = 60.0  # without a sign of life of a stream, which the service gives every 15
_AGAIN_S = 1.0
_TRIES = 8
_PIECE = 1 << 16


class ServiceError(ClusterError):
    """The service refused, or can't be reached.

    Attributes:
        status: Of its answer; None where there was none.
        where: The field that it names.
    """

    def __init__(self, message: str, status: int | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.where = where


@dataclass(frozen=True)
class Event:
    """One event of an evolution.

    Attributes:
        kind: summary, trial, epoch or end.
        data: Its JSON.
        offset: Byte of the journal up to which everything is told by then; None where an event does not say.
    """

    kind: str
    data: dict[str, Any]
    offset: int | None


class ServiceClient:
    """A client of one service; close it, or use it as a context.

    Args:
        url: Such as `http://127.0.0.1:8400`.
        token: Sent with every request; the service is told nothing else.

    Raises:
        ServiceError: The URL is none of http or https.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Nothing is asked yet."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServiceError(f"the service must be an http or https URL, but got {url!r}")
        if parts.username or parts.password:
            raise ServiceError("the service's URL must hold no password: set BEAGLE_TOKEN")
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # No redirect is followed, so the token goes to this address alone; a proxy does not reach loopback.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT_S, trust_env=not is_loopback(parts.hostname)
        )

    def health(self) -> Health:
        """Whether it answers, and its version. Raises ServiceError, as all below do."""
        return self._read("GET", "/health", Health)

    def choices(self) -> Choices:
        """Places, built-in models and searches that requests may name there."""
        return self._read("GET", "/choices", Choices)

    def evolutions(self) -> Evolutions:
        """All evolutions, the newest first."""
        return self._read("GET", "/evolutions", Evolutions)

    def evolution(self, run: str) -> Evolution:
        """One evolution whole."""
        return self._read("GET", f"/evolutions/{_part(run)}", Evolution)

    def trial(self, run: str, number: int) -> TrialDetail:
        """One trial with its curve."""
        return self._read("GET", f"/evolutions/{_part(run)}/trials/{number}", TrialDetail)

    def start(self, new: NewEvolution) -> Started:
        """Hand over an evolution as a job. Never sent twice: one that got no answer may have been begun."""
        return self._read("POST", "/evolutions", Started, json=new.model_dump())

    def stop(self, run: str) -> Stopping:
        """Ask an evolution to stop gently."""
        return self._read("POST", f"/evolutions/{_part(run)}/stop", Stopping)

    def report(self, run: str) -> bytes:
        """Its report as HTML."""
        return self._ask("GET", f"/evolutions/{_part(run)}/report").content

    def export(self, run: str, target: Path, export_format: str | None = None) -> Path:
        """Write what production trains from into a new folder; nothing is left of one that can't be got whole.

        Args:
            run: The evolution's id.
            target: Folder to make; must not exist.
            export_format: Of the program that trains; None for the run's own.

        Raises:
            ServiceError: It exists, or the service refuses.
        """
        if target.exists():
            raise ServiceError(f"{target} exists already: choose another folder")
        params = {"format": export_format} if export_format else {}
        path = f"/evolutions/{_part(run)}/export"
        with TemporaryFile() as packed:
            with self._stream("GET", path, params=params) as answer:
                for piece in answer.iter_bytes(_PIECE):
                    packed.write(piece)
            _unpack(packed, target)
        return target

    def fit_file(self, file: Path, **fields: Any) -> FitResult:
        """Fit anchors to the boxes of a file that is sent there: CSV, labels, COCO JSON, or a zip of such.

        Args:
            file: On this machine.
            fields: Of `FitRequest`, but for `path`.

        Raises:
            ServiceError: The service refuses, or no anchors can be fitted.
        """
        data = {name: str(value) for name, value in fields.items()}
        try:
            with file.open("rb") as content:
                fit = self._read(
                    "POST",
                    "/anchors",
                    Fit,
                    params={"wait": 0},
                    data=data,
                    files={"file": (file.name, content)},
                )
        except OSError as error:
            raise ServiceError(f"{file} can't be read: {error.strerror}") from error
        return self._result(fit)

    def fit_path(self, path: str, **fields: Any) -> FitResult:
        """Fit anchors to data on the service's machine, or to digits. Fields and errors as for `fit_file`."""
        asked = {"path": path, **fields}
        return self._result(self._read("POST", "/anchors", Fit, params={"wait": 0}, json=asked))

    def _result(self, fit: Fit) -> FitResult:
        """Wait for a fit's end; the service may be started anew meanwhile."""
        while fit.state in ("waiting", "running"):
            fit = _again(lambda: self._read("GET", f"/anchors/{fit.id}", Fit, params={"wait": WAIT_S}))  # noqa: B023
        if fit.result is None:
            raise ServiceError(fit.error or "the fit failed and says no reason")
        return fit.result

    def events(self, run: str, offset: int | None = None) -> Iterator[Event]:
        """What happens in an evolution until nobody drives it any more; a connection that is lost is taken up again.

        Args:
            run: The evolution's id.
            offset: Of an earlier event, or of `Evolution.offset`: tells what came after; None for what is to come.
        """
        known, failed = offset, 0
        while True:
            headers = {} if known is None else {"last-event-id": str(known)}
            try:
                with self._stream("GET", f"/evolutions/{_part(run)}/events", headers=headers) as answer:
                    for event in _events(answer.iter_lines()):
                        failed, known = 0, known if event.offset is None else event.offset
                        yield event
                        if event.kind == "end":
                            return
            except ServiceError as error:
                failed += 1
                if not _may_pass(error) or failed >= _TRIES:
                    raise
            time.sleep(_AGAIN_S * max(failed, 1))

    def _read(self, method: str, path: str, model: type[Model], **more: Any) -> Model:
        answer = self._ask(method, path, **more)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise ServiceError(
                f"{self.url} is no Beagle service of this version: {path} gave {answer.text[:80]!r}"
            ) from error

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self._stream(method, path, **more) as answer:
            answer.read()
            return answer

    @contextmanager
    def _stream(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        try:
            timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S + WAIT_S)
            with self._http.stream(method, path, timeout=timeout, **more) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                yield answer
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self.url} does not answer ({str(error) or type(error).__name__})"
            ) from error

    def close(self) -> None:
        """Give up its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _part(run: str) -> str:
    return quote(run, safe="")


def _refusal(answer: httpx.Response) -> ServiceError:
    """What an answer that is none says."""
    try:
        said = json.loads(answer.content)
        line, where = str(said["error"]), said.get("where")
    except (ValueError, KeyError, TypeError, AttributeError):
        line, where = f"the service answers with status {answer.status_code}", None
    if answer.status_code == 401:
        line += " (set BEAGLE_TOKEN, or give --token-file)"
    return ServiceError(line, answer.status_code, where if isinstance(where, str) else None)


def _may_pass(error: ServiceError) -> bool:
    """Whether another try may go better: no answer, too many, or a service that is being started."""
    return error.status is None or error.status in (429, 502, 503, 504)


def _again(ask: Callable[[], Model]) -> Model:
    for tried in range(1, _TRIES):
        try:
            return ask()
        except ServiceError as error:
            if not _may_pass(error):
                raise
            time.sleep(_AGAIN_S * tried)
    return ask()


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Source: HTML Standard, section 9.2.6, as far as the service uses it: one line of data an event."""
    kind, data, offset = "", "", None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif name == "id":
            offset = int(value)
        elif not line and data:
            yield Event(kind, json.loads(data), offset)
            kind, data, offset = "", "", None


def _unpack(packed: IO[bytes], target: Path) -> None:
    """Unpack the one folder of an archive, aside and then into place."""
    aside = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(packed) as archive:
            for info in archive.infolist():
                parts = PurePosixPath(info.filename).parts[1:]
                if not parts or ".." in parts or info.is_dir():
                    raise ServiceError(f"the export holds {info.filename!r}, which is no place for a file")
                path = aside.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(info))
                if info.external_attr >> 16 & 0o100:
                    path.chmod(0o755)
        aside.rename(target)
    except (zipfile.BadZipFile, OSError) as error:
        raise ServiceError(f"{target}: the export can't be written ({error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
