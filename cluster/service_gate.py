"""Who may speak to the service, how much, and how slowly: plain ASGI around the application.

The order matters: a request without the token is refused before any of its body is read.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.service_settings import MIB, ServiceSettings, is_loopback
from evolve.page import sources

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Count = Callable[[str, str, int, float], None]
"""(method, pattern of the path, status, seconds)"""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/health", "/ready", "/favicon.ico")  # say nothing of any run
UPLOADS = ("/anchors",)
SMALL_BODY = MIB // 4
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
_SCRIPT, _STYLE = sources()
# The page's own files alone: no inline script, nothing from elsewhere, in nobody's frame. A report that the page
# fetched with its token and opened lives under the page's policy, so the report's script and style are named.
HEADERS = (
    (b"content-security-policy", f"default-src 'self'; script-src 'self' {_SCRIPT}; style-src 'self' {_STYLE}; "
     "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
     .encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


class _BodyError(Exception):
    """A body beyond its limit, or one that does not come in time."""


class Audit:
    """One JSON line for each request that would change something, with its outcome; appended and flushed."""

    def __init__(self, path: Path) -> None:
        """Lines go to `path`, whose folder is made when the first is written."""
        self._path = path

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. A full disk is logged, and ends no request."""
        text = json.dumps(line, separators=(",", ":"))
        logger.info("audit %s", text)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            logger.error("%s: the audit line can't be written (%s)", self._path, error.strerror)


class Gate:
    """The application behind its limits."""

    def __init__(self, app: App, settings: ServiceSettings, audit: Audit, count: Count) -> None:
        """Around `app`; `count` is told of each request."""
        self._app = app
        self._count = count
        self._settings = settings
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        status, answered = 500, False

        async def told(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                self._write_down(
                    scope, headers, status, began
                )  # first, so whoever has an answer has its line
                given = {key.lower() for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((key, value) for key, value in HEADERS if key not in given),
                ]
            await asyncio.wait_for(send(message), self._settings.send_seconds)

        began = time.time()
        try:
            refused = self._refusal(scope, headers)
            if refused is not None:
                await _refuse(told, *refused)
            else:
                limit = self._settings.upload_bytes if scope["path"] in UPLOADS else SMALL_BODY
                await self._let_in(scope, headers, limit, receive, told)
        except TimeoutError:
            logger.info(
                "%s took nothing of its answer for %g s: closed", _client(scope), self._settings.send_seconds
            )
            raise
        finally:
            route = getattr(scope.get("route"), "path", "-")
            self._count(scope["method"], route, status, time.time() - began)
            if not answered:
                self._write_down(scope, headers, status, began)

    def _write_down(self, scope: Scope, headers: dict[str, str], status: int, began: float) -> None:
        if scope["method"] not in CHANGES:
            return
        self._audit.write(
            {
                "time": round(began, 3),
                "client": _client(scope),
                # Of the service's own token alone: of a wrong one nothing is kept.
                "token": self._settings.fingerprint if _bearer(headers) and status != 401 else "-",
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "what": scope.get("state", {}).get("what"),
            }
        )

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str | None] | None:
        """Status, reason and field for which a request is refused at the door."""
        token = self._settings.token
        if token is None:
            # Without a token the browser of whoever sits here is the danger: pages of other sites may speak to
            # loopback, and names of other sites may lead here.
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            if not is_loopback(host):
                return 403, "the service has no token and answers to names of this machine alone", "Host"
        if scope["method"] in CHANGES and not _same_origin(headers):
            return 403, "a page of another site may not change anything here", "Origin"
        if token is None or scope["path"] in OPEN or scope["path"].startswith("/static/"):
            return None
        given = _bearer(headers)
        if not given:
            return 401, "a token must be given: Authorization: Bearer TOKEN", "Authorization"
        if not hmac.compare_digest(given.encode("latin-1", "replace"), token.encode()):
            return 401, "the token is wrong", "Authorization"
        return None

    async def _let_in(
        self, scope: Scope, headers: dict[str, str], limit: int, receive: Receive, send: Send
    ) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            await _refuse(send, 413, f"a body may have {limit} bytes at most", None)
            return
        body = _Body(receive, limit, self._settings.body_seconds)
        begun = refused = False

        async def sent(message: Message) -> None:
            nonlocal begun, refused
            if not begun and body.fault is not None:  # the application calls it an error of parsing
                refused = True
                await _refuse(send, *body.fault)
            begun = True
            if not refused:
                await send(message)

        try:
            await self._app(scope, body, sent)
        except _BodyError:
            if not begun and body.fault is not None:
                await _refuse(send, *body.fault)


class _Body:
    """A request's body, counted and timed while it comes.

    Attributes:
        fault: Status, reason and field once it was refused.
    """

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self.fault: tuple[int, str, str | None] | None = None
        self._receive = receive
        self._limit = self._left = limit
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._complete = False

    async def __call__(self) -> Message:
        """The next piece.

        Raises:
            _BodyError: More came than may, or it did not come in time.
        """
        if self._complete:  # what comes now is the end of the connection, for which there is no hurry
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(self._deadline - time.monotonic(), 0.0))
        except TimeoutError as error:
            self.fault = 408, f"the body must come within {self._seconds:g} s", None
            raise _BodyError from error
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._left < 0:
                self.fault = 413, f"a body may have {self._limit} bytes at most", None
                raise _BodyError
        return message


def _bearer(headers: dict[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether a request comes from the service's own page or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _client(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else "-"


async def _refuse(send: Send, status: int, error: str, where: str | None) -> None:
    body = json.dumps({"error": error, "where": where}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not waited for
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
