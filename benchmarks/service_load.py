"""The service under load: mixed reads by an open clock while a real evolution runs, and fits that come all at once.

`python -m benchmarks.service_load [--rate 200] [--seconds 20] [--fits 50] [--trials 300] [--idle]` starts `beagle
serve` on a free port of loopback, writes runs of many trials beside it, starts an evolution of digits by it (`--idle`
leaves that out), and asks at a fixed rate, whether earlier answers have come or not: so a service that stalls is not
asked less. Prints the latency from the moment a request was due.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil

from evolve import Gene, GeneticSearch, Space
from evolve.journal import Journal

GENES = [Gene("lr0", 1e-5, 1e-1, start=0.01, log=True), Gene("mosaic", 0.0, 1.0, start=1.0)]
SERVE = [sys.executable, "-P", "-c", "from beagle.cli import main; main()", "serve", "--port", "0"]
NEW = {"data": "digits", "name": "live", "model": "yolov5n", "image_size": 64, "batch_size": 64, "epochs": 2}


def write_run(folder: Path, trials: int) -> None:
    """A run of so many trials of three epochs, by the journal's own writer."""
    rng, search = np.random.default_rng(0), GeneticSearch(Space(GENES), seed=0)
    with Journal(folder / "journal.jsonl") as journal:
        settings = {"data": "digits", "model": "yolov5n", "epochs": 3}
        head = {"event": "run", "version": 1, "name": folder.name, "trials": trials, "seed": 0, "search": {}}
        journal.append({**head, "space": Space(GENES).to_dict(), "settings": settings, "resources": {}})
        trial = search.ask()
        for number in range(trials):
            journal.append(
                {"event": "ask", "trial": number, "config": trial.config, "origin": trial.origin}, sync=False
            )
            for epoch in range(3):
                row = {"event": "report", "trial": number, "attempt": 0, "epoch": epoch}
                journal.append({**row, "metrics": {"fitness": 0.1 * epoch, "map50": 0.2 * epoch}})
            told = {"event": "tell", "trial": number, "status": "finished", "fitness": float(rng.random())}
            journal.append({**told, "metrics": {}, "epochs": 3, "seconds": 1.0, "result": {}}, sync=False)


def mixture(trials: int, rng: np.random.Generator) -> str:
    """A path as a page and a few scripts would ask."""
    run = f"run-{rng.integers(3)}"
    paths = (
        "/evolutions", "/evolutions/live", f"/evolutions/{run}", f"/evolutions/{run}/trials/{rng.integers(trials)}",
        "/health", "/metrics",
    )  # fmt: skip
    return str(rng.choice(paths, p=(0.25, 0.25, 0.15, 0.25, 0.05, 0.05)))


async def ask_at_rate(
    http: httpx.AsyncClient, rate: int, seconds: float, paths: list[str]
) -> tuple[list[float], int]:
    """Seconds from when each request was due to its end, and how many failed."""
    took: list[float] = []
    failed = 0
    begun = time.perf_counter()

    async def one(due: float, path: str) -> None:
        nonlocal failed
        try:
            answer = await http.get(path)
            failed += answer.status_code != 200
        except httpx.HTTPError:
            failed += 1
        took.append(time.perf_counter() - begun - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = number / rate
            await asyncio.sleep(max(begun + due - time.perf_counter(), 0))
            group.create_task(one(due, paths[number % len(paths)]))
    return took, failed


async def fit_at_once(http: httpx.AsyncClient, count: int) -> tuple[int, float]:
    """How many of so many fits were done, and the seconds to the last."""
    begun = time.perf_counter()

    async def one(seed: int) -> bool:
        sides = np.exp(np.random.default_rng(seed).normal(3.5, 0.8, size=(500, 2))).round(2)
        text = "w,h\n" + "\n".join(f"{w},{h}" for w, h in sides)
        answer = (await http.post("/anchors?wait=0", files={"file": ("b.csv", text.encode())})).json()
        while answer["state"] in ("waiting", "running"):
            answer = (await http.get(f"/anchors/{answer['id']}?wait=50")).json()
        return bool(answer["state"] == "done")

    done = sum(await asyncio.gather(*map(one, range(count))))
    return done, time.perf_counter() - begun


async def measure(url: str, service: psutil.Process, options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=90, limits=limits, trust_env=False) as http:
        if options.idle:
            await asyncio.to_thread(write_run, options.runs / "live", 5)
        else:
            (await http.post("/evolutions", json={**NEW, "trials": 100, "concurrent": 1})).raise_for_status()
            while (await http.get("/evolutions/live")).json()["asked"] < 1:
                await asyncio.sleep(0.5)
        paths = [mixture(options.trials, rng) for _ in range(500)]
        for path in sorted(set(paths)):  # journals are read once
            await http.get(path)
        before = sum(service.cpu_times()[:2])
        took, failed = await ask_at_rate(http, options.rate, options.seconds, paths)
        spent = (sum(service.cpu_times()[:2]) - before) / len(took) * 1000
        ms = np.percentile(np.asarray(took) * 1000, [50, 95, 99, 100])
        live = (await http.get("/evolutions/live")).json()
        print(f"reads     {len(took)} at {options.rate}/s, {failed} failed, evolution {live['state']}")
        print(f"latency   p50 {ms[0]:.1f} ms   p95 {ms[1]:.1f} ms   p99 {ms[2]:.1f} ms   most {ms[3]:.1f} ms")
        print(f"service   {spent:.2f} ms of CPU a read")
        if options.fits:
            done, seconds = await fit_at_once(http, options.fits)
            print(f"fits      {done} of {options.fits} sent at once are done, the last after {seconds:.1f} s")
        if not options.idle:
            await http.post("/evolutions/live/stop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--fits", type=int, default=50)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--idle", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        options.runs = Path(place) / "runs"
        for number in range(3):
            write_run(options.runs / f"run-{number}", options.trials)
        print(
            f"machine   {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before, 3 runs of {options.trials}"
        )
        service = subprocess.Popen(
            [*SERVE, "--runs", str(options.runs)], stderr=subprocess.PIPE, text=True, cwd=place
        )
        try:
            assert service.stderr is not None  # noqa: S101  (it was asked for)
            line = service.stderr.readline()
            asyncio.run(
                measure(
                    "http://" + line.partition("http://")[2].split()[0], psutil.Process(service.pid), options
                )
            )
        finally:
            service.terminate()
            service.communicate()


if __name__ == "__main__":
    main()
