"""A real service on a free port of loopback, over run folders whose journals the real search wrote."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from beagle.job_words import needs_of
from beagle.production import Wanted, export_best
from beagle.wiring import EvolveOptions, start_run, train_detector
from cluster.service import Actions, ServiceSettings, build_app
from cluster.service_server import Server
from evolve import Gene, GeneticSearch, Space
from evolve.journal import Journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.ray_driver import Resources
from evolve.trainable import run_trial

ANCHORS = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]
GENES = [Gene("lr0", 1e-5, 1e-1, start=0.01, log=True), Gene("mosaic", 0.0, 1.0, start=1.0)]


@dataclass
class Live:
    """A service that answers."""

    url: str
    settings: ServiceSettings
    http: httpx.Client
    stop: Callable[[], None]

    @property
    def runs(self) -> Path:
        return self.settings.runs

    def audit(self) -> str:
        path = self.runs / ".service" / "audit.jsonl"
        return path.read_text() if path.exists() else ""


def export(folder: Path, target: Path, wanted: str | None) -> None:
    export_best(folder, target, Wanted(wanted))


@contextmanager
def serving(runs: Path, **options: Any) -> Iterator[Live]:
    """A service in a thread; `options` are fields of `ServiceSettings`."""
    settings = ServiceSettings(runs=runs, **{"port": 0, **options})
    ready: list[str] = []
    begun = threading.Event()

    def told(url: str) -> None:
        ready.append(url)
        begun.set()

    server = Server(build_app(settings, Actions(export, needs_of)), settings, told)
    thread = threading.Thread(target=server.run)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(30)

    try:
        assert begun.wait(30)
        headers = {"authorization": f"Bearer {settings.token}"} if settings.token else {}
        with httpx.Client(base_url=ready[0], headers=headers, timeout=60) as http:
            yield Live(ready[0], settings, http, stop)
    finally:
        stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """``serve(token=...)``: a service over the test's own run folder."""
    with ExitStack() as open_services:

        def start(runs: Path | None = None, **options: Any) -> Live:
            return open_services.enter_context(serving(runs or tmp_path / "runs", **options))

        yield start


def write_header(journal: Journal, name: str, trials: int, **facts: Any) -> None:
    journal.append(
        {
            "event": "run",
            "version": 1,
            "name": name,
            "trials": trials,
            "seed": 0,
            "space": Space(GENES).to_dict(),
            "search": {},
            "settings": {
                "data": "digits",
                "model": "yolov5n",
                "epochs": 3,
                "classes": 10,
                "hyp": {},
                "seed": 0,
                "batch_size": 16,
                "image_size": 64,
                "anchors": ANCHORS,
            },
            "resources": {"cpus": 1.0},
            "shapes": {"wh": [[1, 2]], "before": {"bpr": 0.5}, "after": {"bpr": 0.99}},
            **facts,
        }
    )


def write_trials(journal: Journal, count: int, first: int = 0, *, open_last: bool = False) -> None:
    """Trials as the real search proposes them, three epochs each; the second fails."""
    search = GeneticSearch(Space(GENES), seed=0)
    for number in range(first + count):
        trial = search.ask()
        fitness = None if number == 1 else 0.1 + 0.01 * number
        if number >= first:
            journal.append({"event": "ask", "trial": number, "config": trial.config, "origin": trial.origin})
            for epoch in range(3):
                metrics = {"fitness": 0.03 * (epoch + 1), "map50": 0.05 * (epoch + 1)}
                journal.append(
                    {"event": "report", "trial": number, "attempt": 0, "epoch": epoch, "metrics": metrics}
                )
            if open_last and number == first + count - 1:
                return
            status = "failed" if fitness is None else "finished"
            journal.append(
                {
                    "event": "tell", "trial": number, "status": status, "fitness": fitness,
                    "reason": "the loss is no number" if fitness is None else None,
                    "metrics": {}, "epochs": 3, "seconds": 1.5,
                    "result": {"anchors": ANCHORS, "best": "trials/gone/best.pt"},
                }
            )  # fmt: skip
        search.tell(number, fitness)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """``record("night", trials=5)``: a run folder whose journal holds so many trials."""

    def write(name: str, trials: int = 5, planned: int | None = None, **facts: Any) -> Path:
        folder = tmp_path / "runs" / name
        with Journal(folder / "journal.jsonl") as journal:
            write_header(journal, name, planned or trials, **facts)
            write_trials(journal, trials)
        return folder

    return write


@pytest.fixture
def header() -> Callable[..., None]:
    """``header(journal, name, trials)``: begins a journal."""
    return write_header


@pytest.fixture
def trials() -> Callable[..., None]:
    """``trials(journal, count, first=0)``: goes on with one."""
    return write_trials


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one trial that was really trained. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    options = EvolveOptions(
        data="digits", model="yolov5n", trials=2, ladder=Ladder((1,)), batch_size=64, image_size=64
    )
    start_run(folder, options, Resources(), lambda _line: None)
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        first = ledger.next_assignment()
        assert first is not None
        outcome = run_trial(first, train_detector, lambda epoch, row: ledger.reported(0, epoch, row))
        ledger.ended(0, outcome)
    return folder
