"""Evolutions that the service starts and stops: handed over as jobs, asked to stop by their journal's own door."""

import threading
from collections.abc import Callable
from pathlib import Path

from cluster.probe import Needs
from cluster.service_models import NewEvolution
from cluster.service_runs import Runs
from cluster.service_settings import ServiceSettings
from cluster.spec import ClusterError, JobSpec, Resources
from cluster.submit import build_submitter
from evolve.control import ask_to_stop, driver_of
from model.spec import zoo_names

NeedsOf = Callable[[tuple[str, ...], Path], Needs]
"""What a command must find where it runs, from its words and its folder."""


AS_THEY_ARE = (
    *(
        "trials",
        "patience",
        "epoch_budget",
        "confirm",
        "confirm_epochs",
        "confirm_seeds",
        "image_size",
        "batch_size",
        "search",
    ),
    *("anchors", "seed", "cpus", "gpus", "concurrent"),
)
"""Fields of a request that `beagle evolve` has an option for of the same name and value."""


class ConflictError(ClusterError):
    """As things stand that can't be done."""


class TooManyError(ClusterError):
    """As many run already as may."""


class Starter:
    """Starts and stops evolutions. Safe for many threads."""

    def __init__(self, settings: ServiceSettings, runs: Runs, needs_of: NeedsOf) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._runs = runs
        self._needs_of = needs_of
        self._starting = threading.Lock()

    def start(self, new: NewEvolution) -> str:
        """Hand an evolution over as a job; its run folder bears its name.

        Returns:
            The job's id.

        Raises:
            ConflictError: There is a run or a job of this name.
            TooManyError: As many evolutions run on this machine as may.
            ClusterError: The data or the model may not be read, or the place refuses the job.
        """
        settings = self._settings
        if new.to not in settings.places:
            raise ClusterError(
                f"evolutions may be handed over to {', '.join(settings.places)}, but got {new.to}"
            )
        data = new.data if new.data == "digits" else str(settings.allowed(new.data))
        model = new.model if new.model in zoo_names() else str(settings.allowed(new.model))
        out = settings.runs / new.name
        words = evolve_words(new, data, model, out)
        with self._starting:
            if self._runs.is_taken(new.name):
                raise ConflictError(f"there is an evolution {new.name!r} already: choose another name")
            running = sum(
                job.status == "running" and job.place == "local" for job in self._runs.jobs.newest().values()
            )
            if new.to == "local" and running >= settings.local_jobs:
                raise TooManyError(f"{running} evolutions run on this machine: wait for one, or stop one")
            place = build_submitter(new.to, self._runs.jobs.book.folder)
            resources = Resources(
                nodes=new.nodes, gpus=0 if new.to == "local" else _whole(new.gpus), hours=new.hours
            )
            spec = JobSpec(words, settings.runs.parent, new.name, resources=resources)
            look = getattr(place, "check", None)
            lacking = look(spec, self._needs_of(words, spec.folder)) if look is not None else ()
            if lacking:
                raise ClusterError("; ".join(lacking))
            job = place.submit(spec)
            self._runs.jobs.newest(fresh=True)
            return job

    def stop(self, run_id: str) -> str:
        """Ask a run's driver to stop, or end a job that has not begun.

        Returns:
            Whom was asked.

        Raises:
            NoSuchRunError: There is none.
            ConflictError: Nothing runs that could be stopped.
        """
        job = self._runs.jobs.newest(fresh=True).get(run_id)
        goes_on = job is not None and job.status in ("queued", "running")
        try:
            folder = self._runs.folder_of(run_id)
        except ClusterError:
            if not goes_on:
                raise
        else:
            driver = driver_of(folder)
            if driver is not None:
                ask_to_stop(folder)
                return driver
        if job is None or not goes_on:
            raise ConflictError(f"nobody drives {run_id}, so there is nothing to stop")
        self._runs.jobs.book.stop(job.id, patience_s=5.0)  # nobody would see a request before it drives
        return f"job {job.id}"


def _whole(gpus: float) -> int:
    return max(round(gpus), 1) if gpus else 0


def evolve_words(new: NewEvolution, data: str, model: str, out: Path) -> tuple[str, ...]:
    """What follows `beagle` on the command line. No word of a request can become an option of its own."""
    words = ["evolve", data, "--model", model, "--out", str(out), "--resume"]
    options = {
        "epochs": ",".join(map(str, (*new.rungs, new.epochs))),
        "genes": ",".join(new.genes) or None,
        **{name: getattr(new, name) for name in AS_THEY_ARE},
    }
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return tuple(words)
