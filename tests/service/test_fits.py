"""Anchor fits of the service: in turns, none lost, and taken up again by the next service."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from cluster.fit_worker import density
from cluster.service_fits import FitQueue
from cluster.service_models import FitResult
from cluster.service_settings import ServiceSettings

Serve = Callable[..., Any]
SCRIPT = [sys.executable, "-P", "-c", "from beagle.cli import main; main()"]


def boxes(seed: int, count: int = 30) -> bytes:
    sides = np.exp(np.random.default_rng(seed).normal(3, 0.6, size=(count, 2)))
    return ("w,h\n" + "\n".join(f"{w:.2f},{h:.2f}" for w, h in sides)).encode()


def post(http: httpx.Client, seed: int, **params: Any) -> httpx.Response:
    # A cheap fit: as many shapes as anchors and a few.
    return http.post(
        "/anchors", params=params, files={"file": ("b.csv", boxes(seed, 12))}, data={"image_size": "320"}
    )


def test_a_fit_answers_with_figures_and_the_density_of_its_boxes(serve: Serve) -> None:
    live = serve()
    answer = live.http.post("/anchors", params={"wait": 60}, files={"file": ("b.csv", boxes(1))})
    assert answer.status_code == 200, answer.text
    found = FitResult.model_validate(answer.json()["result"])
    assert np.asarray(found.anchors).shape == (3, 3, 2)
    assert found.after.fitness >= found.before.fitness
    counts = np.asarray(found.density.counts)
    assert counts.sum() == found.boxes == 30
    assert counts.shape == (len(found.density.log2_h_edges) - 1, len(found.density.log2_w_edges) - 1)
    again = live.http.get(f"/anchors/{answer.json()['id']}")
    assert again.json() == answer.json()


def test_the_density_counts_every_box_whatever_its_shape() -> None:
    for wh in (
        [[1, 1]],
        [[0.001, 9000.0]],
        [[8, 16], [8, 16], [7.99, 16.01]],
        [[2.0**k, 2.0**-k] for k in range(9)],
    ):
        table = density(np.asarray(wh, dtype=np.float64))
        assert np.sum(table.counts) == len(wh)
        row, column = np.argwhere(np.asarray(table.counts) > 0)[0]
        assert table.log2_w_edges[column] < table.log2_w_edges[column + 1]
        assert table.log2_h_edges[row] < table.log2_h_edges[row + 1]


def test_clients_take_turns_whoever_came_with_many(tmp_path: Path) -> None:
    queue = FitQueue(ServiceSettings(runs=tmp_path))
    for number in range(4):
        queue._line_up(f"many-{number}", "many")
    queue._line_up("few-0", "few")
    queue._line_up("few-1", "few")
    expected = ["many-0", "few-0", "many-1", "few-1", "many-2", "many-3"]
    assert [queue._position(fit) for fit in expected] == list(range(6))
    assert [queue._next() for _ in range(6)] == expected
    assert queue.waiting == 0


def test_more_fits_than_may_wait_are_refused_and_the_rest_are_done(serve: Serve) -> None:
    live = serve(fits_at_once=1, fits_waiting=2)
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda seed: post(live.http, seed, wait=0), range(8)))
    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) == {202, 429}
    assert counted[202] >= 2
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    for answer in (each for each in answers if each.status_code == 202):
        assert live.http.get(f"/anchors/{answer.json()['id']}", params={"wait": 60}).json()["state"] == "done"
    folders = [path.name for path in (live.runs / ".service" / "fits").iterdir()]
    assert len(folders) == counted[202]


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts `beagle serve` as a user would; none is left."""
    started: list[subprocess.Popen[str]] = []

    def start(port: int, **given: str) -> tuple[subprocess.Popen[str], str]:
        words = ["serve", "--port", str(port), "--runs", str(tmp_path / "runs"), "--fits", "1"]
        environment = {**os.environ, **given}
        process = subprocess.Popen(
            [*SCRIPT, *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
        )
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "http://" in line, line
        return process, "http://" + line.partition("http://")[2].split()[0]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def test_fits_of_a_service_that_is_killed_are_done_by_the_next(
    start_process: Callable[..., tuple[subprocess.Popen[str], str]], unused_port: int
) -> None:
    token = {"BEAGLE_TOKEN": "a-token-for-these-tests-alone"}
    first, url = start_process(unused_port, **token)
    headers = {"authorization": f"Bearer {token['BEAGLE_TOKEN']}"}
    with httpx.Client(base_url=url, timeout=60, headers=headers) as http:
        assert httpx.get(f"{url}/evolutions").status_code == 401
        ids = [post(http, seed, wait=0).json()["id"] for seed in range(3)]
        first.kill()
        first.wait()
        start_process(unused_port, **token)
        for fit_id in ids:
            found = http.get(f"/anchors/{fit_id}", params={"wait": 60}).json()
            assert found["state"] == "done", found


def test_what_the_service_starts_does_not_inherit_its_token(
    start_process: Callable[..., tuple[subprocess.Popen[str], str]], unused_port: int
) -> None:
    token = "a-token-for-these-tests-alone"
    service, url = start_process(unused_port, BEAGLE_TOKEN=token)
    headers = {"authorization": f"Bearer {token}"}
    seen: list[dict[str, str]] = []
    with httpx.Client(base_url=url, timeout=60, headers=headers) as http:
        fit_id = post(http, 1, wait=0).json()["id"]
        while not seen and http.get(f"/anchors/{fit_id}").json()["state"] in ("waiting", "running"):
            for child in psutil.Process(service.pid).children():
                with suppress(psutil.Error):  # it has ended
                    if "cluster.fit_worker" in child.cmdline():
                        seen.append(child.environ())
    assert seen
    assert all(environment and token not in environment.values() for environment in seen)


def test_a_process_of_a_fit_that_dies_takes_nobody_along_and_is_not_begun_for_ever(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / ".service" / "fits" / ("a" * 32)
    folder.mkdir(parents=True)
    request = {"client": "c", "time": time.time(), "path": "digits", "model": "yolov5n", "image_size": 320}
    request |= {"per_level": 0, "threshold": 4.0, "seed": 0}
    (folder / "request.json").write_text(json.dumps(request))
    (folder / "starts").write_bytes(b"...")  # three services died of it
    live = serve()
    found = live.http.get(f"/anchors/{folder.name}", params={"wait": 60}).json()
    assert found["state"] == "failed"
    assert "3 times" in found["error"]
    assert post(live.http, 1, wait=60).json()["state"] == "done"


@pytest.mark.slow
def test_fifty_fits_at_once_are_all_done(serve: Serve) -> None:
    live = serve()
    with ThreadPoolExecutor(50) as many:
        answers = list(many.map(lambda seed: post(live.http, seed, wait=0), range(50)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 50
    for fit_id in ids:
        while (found := live.http.get(f"/anchors/{fit_id}", params={"wait": 60}).json())["state"] != "done":
            assert found["state"] in ("waiting", "running"), found


@pytest.mark.slow
def test_an_evolution_outlives_the_service_that_started_it(
    start_process: Callable[..., tuple[subprocess.Popen[str], str]], unused_port: int
) -> None:
    first, url = start_process(unused_port)
    new = {"data": "digits", "name": "night", "model": "yolov5n", "image_size": 64, "batch_size": 64}
    new |= {"epochs": 1, "trials": 3, "concurrent": 1}
    with httpx.Client(base_url=url, timeout=60) as http:
        assert http.post("/evolutions", json=new).status_code == 201
        while http.get("/evolutions/night").json()["asked"] < 1:
            time.sleep(0.3)
        first.kill()
        first.wait()
        start_process(unused_port)
        while (found := http.get("/evolutions/night").json())["state"] == "running":
            time.sleep(0.3)
        assert (found["state"], found["finished"]) == ("finished", 3)
        assert http.get("/evolutions/night/export").status_code == 200
