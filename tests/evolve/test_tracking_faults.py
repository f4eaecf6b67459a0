"""MLflow's server hangs, fails or rejects: the evolution neither waits for it nor loses anything by it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evolve import Gene, Journal, Space
from evolve.ledger import Ledger
from evolve.live_tracking import LiveMirror
from evolve.mlflow_store import ENVIRONMENT, Store, TrackingError, default_store
from evolve.tracking import sync
from evolve.trainable import Outcome

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own deprecations are not ours

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A server on this machine that answers every request so; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *words: object) -> None:
            """Keep still."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rejects(request: BaseHTTPRequestHandler) -> None:
    """The token is wrong."""
    body = b'{"error_code": "PERMISSION_DENIED", "message": "no token"}'
    request.send_response(403)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def is_no_mlflow(request: BaseHTTPRequestHandler) -> None:
    """Some other server answers."""
    body = b"<html>It works!</html>"
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def evolve(folder: Path, store: Store, patience_s: float) -> tuple[float, TrackingError | None]:
    """An evolution of eight trials, mirrored; the longest that one step of it took, and what the mirror says."""
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": "run",
                "trials": 8,
                "seed": 0,
                "space": Space([Gene("x", 0, 1)]).to_dict(),
                "search": {},
                "settings": {},
                "resources": {},
                "provenance": {},
            }
        )
        mirror = LiveMirror(folder, store, period_s=0.05)
        mirror.start()
        ledger, longest = Ledger(folder, journal), 0.0
        for number in range(8):
            begun = time.monotonic()
            assert ledger.next_assignment() is not None
            ledger.ended(number, Outcome(0.1 * number, {"fitness": 0.1 * number}))
            longest = max(longest, time.monotonic() - begun)
            time.sleep(0.1)
        assert ledger.complete
        return longest, mirror.close(patience_s)


@pytest.mark.parametrize("answer", [rejects, is_no_mlflow])
def test_a_server_that_refuses_leaves_the_run_whole_and_is_named(answer: Answer, tmp_path: Path) -> None:
    with serving(answer) as uri:
        longest, problem = evolve(tmp_path / "run", Store(uri), 60)
    assert longest < 20
    assert isinstance(problem, TrackingError)
    assert uri in str(problem)
    assert "\n" not in str(problem)
    assert sync(tmp_path / "run", default_store(tmp_path, {})) > 0


def test_a_server_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    release = threading.Event()
    with serving(lambda request: release.wait(60)) as uri:
        longest, problem = evolve(tmp_path / "run", Store(uri), 1.0)
        assert longest < 20
        assert isinstance(problem, TrackingError)
        assert "too slow to wait for" in str(problem)
        release.set()
    assert sync(tmp_path / "run", default_store(tmp_path, {})) > 0
