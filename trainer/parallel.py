"""One detector trained by several processes of this machine, one per GPU, that share each batch.

Each process computes its share of the batch; gradients are averaged in the backward pass, so all take the same step
and keep the same weights, optimiser state and moving average. The first evaluates, writes and speaks to the process
that launched them, which reports and can stop them all.
"""

import atexit
import gc
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from dataset import Dataset, load
from model.spec import load_spec
from trainer import memory, prepare
from trainer.config import TrainConfig, TrainError, TrainResult
from trainer.loop import Report, run_job
from trainer.session import Job
from trainer.stopping import StoppedError
from trainer.team import Team

logger = logging.getLogger(__name__)

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, for the first one's evaluation say."""

LOOK = 1.0
"""Seconds between two looks whether somebody asks the training to stop."""

END = 10.0
"""Seconds that a process is given to end."""


class WorkerError(RuntimeError):
    """A process of a training died without a word."""


@dataclass(frozen=True)
class Orders:
    """What a process is started with: plain data, and the data set when it was given."""

    config: TrainConfig
    dataset: Dataset
    rank: int
    init_method: str
    pieces: int
    notes: tuple[str, ...]


def train_worker(
    config: TrainConfig,
    rank: int,
    world: int,
    init_method: str,
    report: Report | None = None,
    *,
    job: Job | None = None,
) -> TrainResult:
    """Be one of the processes of a training, from joining the others to its result.

    Args:
        config: The same in all processes, with a batch size that is a number.
        rank: Of this process, from 0. On CUDA it takes the device of this number.
        world: How many processes there are.
        init_method: Where they meet, as of `torch.distributed.init_process_group`: "file://..." or "tcp://host:port".
        report: Called in the first process, as of `train`.
        job: What to train, when it is built already; its configuration is replaced by `config`.

    Raises:
        TrainError: As `train`.
        MemoryError, torch.OutOfMemoryError, RuntimeError: See `memory.is_exhausted`.
    """
    device = prepare.choose_device(config.device)
    if device.type == "cuda":
        device = prepare.choose_device(f"cuda:{rank}")
        torch.cuda.set_device(device)
    config = replace(config, device=str(device))
    if job is None:
        dataset = load(config.data, difficult=config.difficult)
        job = Job(config=config, dataset=dataset, base=load_spec(config.model, classes=len(dataset.names)))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method, PATIENCE, world, rank)
    result = run_job(replace(job, config=config, team=Team(rank, world)), report)
    dist.destroy_process_group()  # not after an error: the others may never come to it
    return result


def launch(job: Job, report: Report | None) -> TrainResult:
    """Train with `config.devices` processes of this machine.

    Args:
        job: What to train.
        report: Called in this process; the training waits until it returns.

    Raises:
        TrainError: As `train`.
        ExhaustedError: Memory ran out in one of them.
        WorkerError: One died without a word.
    """
    world = job.config.devices
    if prepare.choose_device(job.config.device).type == "cuda" and world > torch.cuda.device_count():
        raise TrainError(
            f"devices must be at most {torch.cuda.device_count()}, as many as this machine has, but got {world}"
        )
    with tempfile.TemporaryDirectory(prefix="beagle-meet-") as meeting:
        init_method = (Path(meeting) / "store").as_uri()
        orders = [
            Orders(job.config, job.dataset, rank, init_method, job.pieces, job.notes) for rank in range(world)
        ]
        with _processes(orders) as (processes, lines):
            return _listen(job, report, processes, lines)


def _listen(
    job: Job, report: Report | None, processes: list[SpawnProcess], lines: list[Connection]
) -> TrainResult:
    """Pass on what the processes say, until the first one has a result."""
    open_lines = dict(zip(lines, processes, strict=True))
    while True:
        if job.stopped():
            raise StoppedError("asked to stop: a resume begins the epoch again")
        ready = wait(list(open_lines), LOOK)
        for line in [each for each in open_lines if each in ready]:
            said = _receive(line)
            if said is None:
                _bury(open_lines, line)
            elif said[0] == "result":
                result: TrainResult = said[1]
                return result
            elif said[0] == "error":
                raise said[1]
            elif said[0] == "progress" and job.progress:
                job.progress(*said[1:])
            elif said[0] == "report":
                if report:
                    report(*said[1:])
                line.send("go on")


def _receive(line: Connection) -> tuple[Any, ...] | None:
    """What a process says; None when it has ended."""
    try:
        said: tuple[Any, ...] = line.recv()
    except (EOFError, ConnectionResetError):
        return None
    return said


def _bury(open_lines: dict[Connection, SpawnProcess], line: Connection) -> None:
    """Forget a process that has ended well.

    Raises:
        WorkerError: It has not, and no other says why. One that fails takes those along that wait for it.
    """
    process = open_lines.pop(line)
    process.join(END)
    if process.exitcode == 0:
        return
    for other in open_lines:
        said = _receive(other) if other.poll(END) else None
        if said and said[0] == "error":
            raise said[1]
    raise WorkerError(f"{process.name} died (exit code {process.exitcode}); what it said last is above")


@contextmanager
def _processes(orders: list[Orders]) -> Iterator[tuple[list[SpawnProcess], list[Connection]]]:
    """Started processes and a line to each; whatever happens, none outlives this."""
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    lines: list[Connection] = []
    try:
        for order in orders:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(order, theirs), name=f"trainer-{order.rank}")
            process.start()
            theirs.close()
            processes.append(process)
            lines.append(ours)
        yield processes, lines
    finally:
        for process in processes:
            process.join(END if sys.exc_info()[0] is None else 0)
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(END)
            if process.is_alive():
                process.kill()
                process.join()
        for line in lines:
            line.close()


def _work(orders: Orders, line: Connection) -> None:
    """What a started process does."""
    _die_with_parent()
    config, world = orders.config, orders.config.devices
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # they all live here: nobody else need hear them
    threads = config.threads or max((os.cpu_count() or 1) // world, 1)
    first = orders.rank == 0
    job = Job(
        config=config,
        dataset=orders.dataset,
        base=load_spec(config.model, classes=len(orders.dataset.names)),
        pieces=orders.pieces,
        notes=orders.notes,
        progress=(lambda *done: line.send(("progress", *done))) if first else None,
    )

    def report(epoch: int, row: dict[str, float]) -> None:
        line.send(("report", epoch, row))
        line.recv()

    said: tuple[Any, ...] | None = None
    try:
        with prepare.cpu_threads(threads):
            result = train_worker(config, orders.rank, world, orders.init_method, report, job=job)
        said = ("result", result) if first else None
    except (ValueError, RuntimeError, MemoryError) as error:
        if memory.is_exhausted(error):
            said = ("error", memory.ExhaustedError(str(error)))
        elif type(error).__module__.partition(".")[0] in ("dataset", "model", "trainer"):
            said = ("error", error)
        else:
            raise
    if said:
        with suppress(BrokenPipeError):
            line.send(said)
    end_process()


def end_process() -> NoReturn:
    """End this process well, tidied up as Python does it, but without taking the interpreter apart.

    Gloo's threads live on after `destroy_process_group`. One that lets go of a tensor needs Python's lock, and to ask
    for that from an interpreter that is being taken apart aborts the process (pytorch/pytorch issue 190489).
    """
    gc.collect()
    atexit._run_exitfuncs()  # what `sys.exit` would run; it has no public name
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent() -> None:
    """End this process when the one that launched it is gone: nobody would hear the result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True, name="parent-watch").start()
