"""Jobs on a Ray cluster that is up already, through its Jobs API.

The driver runs on the cluster, so the laptop may be closed. The cluster's dashboard answers (port 8265); where it
asks for a token, `RAY_AUTH_MODE=token` and `RAY_AUTH_TOKEN` are taken from the environment, as every Ray client does.
"""

import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

from cluster.probe import Needs, read_findings
from cluster.record import STOP
from cluster.remote_place import RemotePlace
from cluster.remote_record import RemoteRecord, load_remote
from cluster.settings import Settings
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus

ENVIRONMENT = "environment.json"
PROBE_S = 120.0
ROOMS = ("anchors", "beagle", "cluster", "dataset", "evolve", "model", "trainer")
STATUS: dict[str, JobStatus] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "STOPPED": "stopped",
    "FAILED": "failed",
}


@dataclass(frozen=True)
class RaySettings(Settings):
    """Where the cluster is, and what it has.

    Attributes:
        address: Of its dashboard, for example http://127.0.0.1:8265.
        python: Absolute interpreter on the cluster that has Beagle and its libraries; this one's path by default.
        ship: What is sent along: `code` sends this Beagle's own code (the libraries must be there), `folder` the
            working folder (at most 100 MiB; `.rayignore` and `.gitignore` leave files out). Both: `code,folder`.
    """

    address: str = "http://127.0.0.1:8265"
    python: str = ""
    ship: str = ""

    def __post_init__(self) -> None:
        if not self.address.startswith(("http://", "https://")):
            raise ClusterError(
                f"the address must be that of Ray's dashboard, http://HOST:8265, but got {self.address!r}"
            )
        for what in filter(None, self.ship.split(",")):
            if what not in ("code", "folder"):
                raise ClusterError(f"ship must be code, folder or both with a comma, but got {self.ship!r}")


class RaySubmitter(RemotePlace):
    """Jobs through Ray's Jobs API.

    The folder of jobs and the run folder must be on storage that the cluster shares, but for jobs that ship their
    folder and write to absolute paths. Variables of a job are handed over by a file in its folder that it deletes
    when it starts: Ray would show them to everybody who may look at the job.
    """

    name = "ray"
    holder = "Ray"

    def __init__(self, folder: Path, settings: RaySettings | None = None) -> None:
        super().__init__(folder)
        self.settings = settings or RaySettings()

    def submit(self, spec: JobSpec) -> str:
        """Hand a job over and give its id.

        Raises:
            ClusterError: The cluster does not answer or refuses it, or it can't be written down.
        """
        with self._new_job(spec) as job:
            # A second job of the same name is an error on the server.
            native = f"{job.name}-{uuid.uuid4().hex[:8]}"
            if spec.environment:
                _write_secret(job / ENVIRONMENT, spec.environment)
            with self._client() as client:
                client.submit_job(
                    entrypoint=entrypoint(spec, self.settings, job),
                    submission_id=native,
                    runtime_env=runtime_environment(spec, self.settings),
                )
            RemoteRecord.of(job, self.name, native, spec, self.settings.to_dict()).save(job)
        return job.name

    def check(self, spec: JobSpec, needs: Needs) -> tuple[str, ...]:
        """What a worker of the cluster lacks for a job, one line each: looked at by a small job of its own.

        Args:
            spec: The job.
            needs: What it needs to find there.

        Raises:
            ClusterError: The cluster does not answer, or has no room for the look in two minutes.
        """
        words = [self.settings.python or sys.executable, "-P", "-m", "cluster.probe"]
        with self._variables(spec) as given, self._client() as client:
            words += [*given, needs.to_json()]
            native = client.submit_job(
                entrypoint=shlex.join(words),
                runtime_env=runtime_environment(spec, self.settings, with_folder=False),
                # On a machine where trials can run, rather than on the head, which often has no GPU.
                entrypoint_num_cpus=1,
                entrypoint_num_gpus=needs.gpus or None,
            )
            end = time.monotonic() + PROBE_S
            while (state := client.get_job_status(native).value) in ("PENDING", "RUNNING"):
                if time.monotonic() > end:
                    client.stop_job(native)
                    return (
                        f"no machine of the cluster had room for a trial of {needs.gpus:g} GPUs in {PROBE_S:g} s: "
                        "ask for less, or wait until others have ended",
                    )
                time.sleep(self.look_again_s / 2)
            text = client.get_job_logs(native)
            message = client.get_job_info(native).message or ""
            client.delete_job(native)
        if state != "SUCCEEDED":
            last = (text.strip().splitlines() or message.strip().splitlines() or ["no reason was given"])[-1]
            return (
                f"Beagle can't run with {words[0]} on the cluster ({last.strip()[:200]}): set python, or ship code",
            )
        return read_findings(text)

    def status(self, job_id: str) -> JobInfo:
        """How a job stands.

        Raises:
            ClusterError: There is no such job, or the cluster does not answer.
        """
        record = load_remote(self.folder, job_id)
        try:
            with self._client() as client:
                info: Any = client.get_job_info(record.native_id)
        except ClusterError as error:
            if "404" not in str(error):
                raise
            info = None  # the cluster was started anew and has forgotten it
        status = STATUS.get(info.status.value, "lost") if info else "lost"
        if status == "failed" and (self.folder / job_id / STOP).exists():
            status = "stopped"  # it was interrupted in time, and said so by its exit code
        ended = info.end_time / 1000 if info and info.end_time else None
        return JobInfo(
            id=job_id,
            words=record.words,
            status=status,
            exit_code=info.driver_exit_code if info else None,
            started_at=record.submitted_at,
            ended_at=ended,
            host=self.settings.address,
            pid=None,
            folder=Path(record.folder),
            log=None,
            place="ray",
            native_id=record.native_id,
            detail=_one_line(info.message) if info and status in ("queued", "failed") else "",
        )

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output so far; with `follow` until it ends.

        Raises:
            ClusterError: There is no such job.
        """
        record = load_remote(self.folder, job_id)
        return self._read_log(record, follow)

    def _read_log(self, record: RemoteRecord, follow: bool) -> Iterator[str]:
        shown = 0
        while True:
            last = not follow or not self.status(record.id).active
            with self._client() as client:
                text = client.get_job_logs(record.native_id)
            yield text[shown:]
            shown = len(text)
            if last:
                return
            time.sleep(self.look_again_s)

    def _interrupt(self, info: JobInfo, patience_s: float) -> None:
        """Through Ray, which kills it when it has not ended in time: a minute, from its submission on."""
        with self._client() as client:
            client.stop_job(info.native_id)

    @contextmanager
    def _variables(self, spec: JobSpec) -> Iterator[tuple[str, ...]]:
        """Words by which a probe finds a job's variables: a file that it deletes, or that is deleted after it."""
        if not spec.environment:
            yield ()
            return
        path = self.folder / f".look-{uuid.uuid4().hex}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_secret(path, spec.environment)
        try:
            yield "--environment", str(path)
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        # This variable would win over the address that the user gave.
        before = os.environ.pop("RAY_ADDRESS", None)
        try:
            # Said outright: Ray reads the variable when it is imported, which may have been before it was set.
            token = os.environ.get("RAY_AUTH_TOKEN")
            yield JobSubmissionClient(
                self.settings.address, headers={"Authorization": f"Bearer {token}"} if token else None
            )
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise ClusterError(
                f"no Ray cluster answers at {self.settings.address}: is it up, and its dashboard with it?"
            ) from error
        except (RuntimeError, RayError) as error:
            raise ClusterError(_refusal(str(error), self.settings.address)) from error
        finally:
            if before is not None:
                os.environ["RAY_ADDRESS"] = before


GENTLE_S = 60


def entrypoint(spec: JobSpec, settings: RaySettings, job: Path) -> str:
    """The job's shell line: every word is quoted, so none of them is read by the shell."""
    words = [settings.python or sys.executable, "-P", "-u", "-m", "cluster.attempts"]
    if spec.environment:
        words += ["--environment", str(job / ENVIRONMENT)]
    line = f"exec {shlex.join([*words, str(spec.retries), *spec.words])}"
    return line if "folder" in settings.ship else f"cd {shlex.quote(str(spec.folder))} && {line}"


def runtime_environment(spec: JobSpec, settings: RaySettings, *, with_folder: bool = True) -> dict[str, Any]:
    """What Ray sets up for the job: nothing secret, since it shows this to all who may see the job."""
    environment: dict[str, Any] = {
        "env_vars": {
            "BEAGLE_RAY_ADDRESS": "auto",
            # As Ctrl-C does: the running trials are left open for a resume. Ray's own choice is SIGTERM, then 3 s.
            "RAY_JOB_STOP_SIGNAL": "SIGINT",
            "RAY_JOB_STOP_WAIT_TIME_S": str(GENTLE_S),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    }
    if "code" in settings.ship:
        here = Path(__file__).resolve().parents[1]
        environment["py_modules"] = [str(here / room) for room in ROOMS]
    if with_folder and "folder" in settings.ship:
        environment["working_dir"] = str(spec.folder)
    return environment


def _write_secret(path: Path, environment: Mapping[str, str]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(dict(environment), file)


def _one_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _refusal(text: str, address: str) -> str:
    if "401" in text or "Unauthorized" in text:
        return f"the cluster at {address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    if "403" in text or "Forbidden" in text:
        return f"the cluster at {address} does not accept the token in RAY_AUTH_TOKEN"
    if "413" in text or ("exceeds" in text and "size" in text):
        return (
            f"the working folder is too large to be sent ({_one_line(text)}): leave files out by a .rayignore"
        )
    return f"the cluster at {address} says: {_one_line(text) if '404' not in text else '404, no such job'}"
