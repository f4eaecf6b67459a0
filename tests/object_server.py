"""An object store on loopback that speaks S3 (moto's), and a way to make it fail: late, refused, or not heard."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "the-name-of-the-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
    "AWS_DEFAULT_REGION": "us-east-1",
}
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
)


class ObjectServer:
    """The server; `fault` is asked before each request what goes wrong with it.

    Attributes:
        url: Of the server.
        fault: From method and path to one of "busy" (503), "late" (half a second more), "cut" (the connection is lost
            before anything is done), "unheard" (it is done, and the connection lost before the answer), "deaf" (a
            condition is overheard, as by old stores), or None.
        asked: Method and path of every request.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self._store: WSGIApplication = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_quiet())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.asked: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        fault = self.fault(method, path)
        if fault == "cut":
            _hang_up(environ)
        if fault == "late":
            time.sleep(0.5)
        if fault == "busy":
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [SLOW_DOWN]
        if fault == "deaf":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        answer = self._store(environ, start)
        if fault == "unheard":
            b"".join(answer)
            _hang_up(environ)
        return answer

    def environment(self) -> dict[str, str]:
        """What a client needs to find and use it."""
        quick = {"AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        return {**CREDENTIALS, **quick, "AWS_ENDPOINT_URL": self.url}

    def empty(self) -> None:
        """As at the start: one bucket with nothing in it."""
        import requests

        self.asked.clear()
        requests.post(f"{self.url}/moto-api/reset", timeout=30).raise_for_status()
        _client(self.url).create_bucket(Bucket=BUCKET)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _quiet() -> type:
    from werkzeug.serving import WSGIRequestHandler

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    return Quiet


def _hang_up(environ: dict[str, Any]) -> None:
    import socket

    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def _client(url: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@contextmanager
def running() -> Iterator[ObjectServer]:
    """A server with one empty bucket."""
    server = ObjectServer()
    try:
        server.empty()
        yield server
    finally:
        server.close()
