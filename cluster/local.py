"""Jobs on this machine: processes in sessions of their own, each with a keeper that writes down how it ended."""

import codecs
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.probe import Needs, findings, gpus_here
from cluster.record import LOG, RECORD, STOP, Record, load_record, new_job_folder
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.1
TERMINATE_S, KILL_S = 10.0, 10.0


class LocalSubmitter:
    """Jobs on this Linux machine, as processes in sessions of their own: a closed terminal does not end them.

    They start at once, without a queue, and don't survive a reboot (nor a log-out, where systemd is told to kill
    what a user leaves running). Each has a folder ID with `job.json` and `output.log`. The environment goes from
    the submitting process to the job and is written nowhere. What a command leaves running in its process group
    is killed when it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def check(self, spec: JobSpec, needs: Needs) -> tuple[str, ...]:
        """What this machine lacks for a job, one line each.

        Args:
            spec: The job.
            needs: What it needs to find.
        """
        found = findings(needs)
        if needs.gpus > gpus_here():
            found.append(
                f"a trial asks for {needs.gpus:g} GPUs, but this machine has {gpus_here()}: ask for less"
            )
        return tuple(found)

    def submit(self, spec: JobSpec) -> str:
        """Start a job and give its id, once it has been recorded.

        Raises:
            ClusterError: The working folder is missing, or the job could not be started or written down.
        """
        if not spec.folder.is_dir():
            raise ClusterError(f"the working folder must exist, but {spec.folder} is no folder")
        try:
            job = new_job_folder(self.folder, spec.name)
            started = subprocess.run(
                [sys.executable, "-P", "-m", "cluster.keeper", str(job), *spec.words],
                cwd=spec.folder,
                env={**os.environ, **spec.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                start_new_session=True,
            )
        except OSError as error:
            raise ClusterError(f"the job can't be started: {error.strerror} ({self.folder})") from error
        if not (job / RECORD).is_file():
            shutil.rmtree(job, ignore_errors=True)
            reason = (started.stderr.strip().splitlines() or [f"exit code {started.returncode}"])[-1]
            raise ClusterError(f"the job can't be started: {reason}")
        return job.name

    def list(self) -> tuple[JobInfo, ...]:
        """All jobs, oldest first; one whose record can't be read is left out with a logged warning."""
        jobs = []
        for path in self.folder.glob(f"*/{RECORD}"):
            try:
                jobs.append(self.status(path.parent.name))
            except ClusterError as error:
                logger.warning("%s", error)
        return tuple(sorted(jobs, key=lambda job: (job.started_at, job.id)))

    def status(self, job_id: str) -> JobInfo:
        """How a job stands.

        Raises:
            ClusterError: There is no such job, or its record can't be read.
        """
        record = self._load(job_id)
        running = record.is_running
        if (
            not running
        ):  # it may have ended between the two looks; the keeper writes before it ends, so now it is final
            record = self._load(job_id)
        job = self.folder / job_id
        return JobInfo(
            id=job_id,
            words=record.words,
            status="running" if running else _ended_as(record, asked=(job / STOP).exists()),
            exit_code=record.exit_code,
            started_at=record.started_at,
            ended_at=record.ended_at,
            host=record.host,
            pid=record.process.pid,
            folder=Path(record.folder),
            log=job / LOG,
        )

    def _load(self, job_id: str) -> Record:
        job = self.folder / job_id
        if job.parent != self.folder or not (job / RECORD).is_file():
            known = sorted(path.parent.name for path in self.folder.glob(f"*/{RECORD}"))
            hint = f"jobs are: {', '.join(known)}" if known else "there are no jobs here yet"
            raise ClusterError(f"there is no job {job_id!r} in {self.folder} ({hint})")
        return load_record(job)

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output (stdout and stderr together) so far; with `follow` until it ends.

        Raises:
            ClusterError: There is no such job.
        """
        self._load(job_id)
        return self._read_log(job_id, follow)

    def _read_log(self, job_id: str, follow: bool) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(
            errors="replace"
        )  # a piece may end within a character
        with (self.folder / job_id / LOG).open("rb") as file:
            while True:
                last = (
                    not follow or not self._load(job_id).is_running
                )  # asked before reading: nothing is missed
                while piece := file.read(1 << 16):
                    yield decoder.decode(piece)
                if last:
                    yield decoder.decode(b"", final=True)
                    return
                time.sleep(LOOK_AGAIN_S)

    def stop(self, job_id: str, patience_s: float = 60.0) -> JobInfo:
        """Interrupt a job as Ctrl-C does; end it by SIGTERM after `patience_s` seconds, and by SIGKILL after 10 more.

        SIGINT and SIGTERM go to the command alone, which ends its own workers; SIGKILL goes to its process group.
        A job that has ended already is left as it is.

        Returns:
            How it stands at its end: "done" still, when it reached its end in time.

        Raises:
            ClusterError: There is no such job, it belongs to another machine or user, or it does not end.
        """
        if not 0 <= patience_s < math.inf:
            raise ClusterError(f"0 <= patience_s must hold and be finite, but got {patience_s}")
        info = self.status(job_id)
        if info.status == "lost" and info.host != socket.gethostname():
            raise ClusterError(f"{job_id} was started on {info.host}: stop it there")
        if info.status != "running":
            return info
        steps = (
            (signal.SIGINT, patience_s),
            (signal.SIGTERM, min(patience_s, TERMINATE_S)),
            (signal.SIGKILL, KILL_S),
        )
        try:
            (self.folder / job_id / STOP).touch()
            for number, wait_s in steps:
                _send(self._load(job_id), number)
                info = self._wait(job_id, wait_s)
                if info.status != "running":
                    return info
        except PermissionError as error:
            raise ClusterError(f"{job_id} can't be stopped: it belongs to another user") from error
        raise ClusterError(
            f"{job_id} does not end: the system still holds process {info.pid}, killed as it is"
        )

    def _wait(self, job_id: str, seconds: float) -> JobInfo:
        end = time.monotonic() + seconds
        while (info := self.status(job_id)).status == "running" and time.monotonic() < end:
            time.sleep(LOOK_AGAIN_S)
        return info


def _ended_as(record: Record, *, asked: bool) -> JobStatus:
    if record.exit_code == 0:
        return "done"
    if asked:
        return "stopped"
    return "lost" if record.exit_code is None else "failed"


def _send(record: Record, number: signal.Signals) -> None:
    if not record.process.lives:
        return  # its keeper is about to write the exit code
    try:
        if number == signal.SIGKILL:
            os.killpg(record.process.pid, number)
        else:
            os.kill(record.process.pid, number)
    except ProcessLookupError:
        logger.debug("%s ended before it got signal %d", record.id, number)
