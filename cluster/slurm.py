"""Jobs on a Slurm cluster, through its own commands."""

import codecs
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cluster.probe import Needs, findings, too_many_gpus
from cluster.record import STOP
from cluster.remote_place import RemotePlace
from cluster.remote_record import RemoteRecord, load_remote
from cluster.slurm_script import EXIT, LOG, SlurmSettings, sbatch_script
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus

SCRIPT = "job.sh"
ANSWER_S = 60.0
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "PREEMPTED"}
)


class SlurmSubmitter(RemotePlace):
    """Jobs as batch scripts of Slurm, from a machine that has its commands.

    The folder of jobs must be on storage that the nodes share, at the same path; so must the working folder and the
    interpreter. A job's script writes down its exit code, so how it ended is known when Slurm has forgotten it and
    where no accounting runs. The environment of the submitting process goes to the job through Slurm.
    """

    name = "slurm"
    holder = "Slurm"

    def __init__(self, folder: Path, settings: SlurmSettings | None = None) -> None:
        super().__init__(folder)
        self.settings = settings or SlurmSettings()

    def submit(self, spec: JobSpec) -> str:
        """Put a job into the queue and give its id.

        Raises:
            ClusterError: Slurm refuses it (its own words are shown), or it can't be written down.
        """
        with self._new_job(spec) as job:
            script = job / SCRIPT
            script.write_text(sbatch_script(spec, self.settings, job, sys.executable), encoding="utf-8")
            answer = _call(
                "sbatch", "--parsable", str(script), environment={**os.environ, **spec.environment}
            )
            native = answer.strip().split(";")[0]
            try:
                RemoteRecord.of(job, self.name, native, spec, self.settings.to_dict()).save(job)
            except ClusterError:
                _call("scancel", native)  # nobody could find it again
                raise
        return job.name

    def check(self, spec: JobSpec, needs: Needs) -> tuple[str, ...]:
        """What stands in a job's way, one line each: what Slurm itself says, and what can't be found on the storage.

        Paths are looked at from this machine, since a look from a node may wait in the queue for hours; storage and
        interpreter must be shared for a job to run at all.

        Args:
            spec: The job.
            needs: What it needs to find.
        """
        script = sbatch_script(spec, self.settings, self.folder / "check", sys.executable)
        found = too_many_gpus(needs, spec.resources.gpus) if not self.settings.gres else []
        found += findings(replace(needs, versions={}))
        try:
            _call("sbatch", "--test-only", given=script)
        except ClusterError as error:
            found.insert(0, f"Slurm would not start it: {error}")
        return tuple(found)

    def status(self, job_id: str) -> JobInfo:
        """How a job stands.

        Raises:
            ClusterError: There is no such job, or Slurm does not answer.
        """
        record = load_remote(self.folder, job_id)
        job = self.folder / job_id
        asked = (job / STOP).exists()
        state, reason, host = _look_up(record.native_id)
        ended = _read_exit(job)
        status: JobStatus
        if ended is not None and state not in WAITING:
            status = "done" if ended[0] == 0 else "stopped" if asked else "failed"
            reason = ""
        elif state in WAITING:
            status, ended = "queued", None
        elif state in RUNNING:
            status = "running"
        else:  # the script could not write its last line, or was never begun
            status = "stopped" if asked or state == "CANCELLED" else "failed" if state else "lost"
        return JobInfo(
            id=job_id,
            words=record.words,
            status=status,
            exit_code=ended[0] if ended else None,
            started_at=record.submitted_at,
            ended_at=ended[1] if ended else None,
            host=host,
            pid=None,
            folder=Path(record.folder),
            log=job / LOG,
            place="slurm",
            native_id=record.native_id,
            detail=reason if status in ("queued", "failed") else "",
        )

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output so far; with `follow` until it ends, also across a stay in the queue.

        Raises:
            ClusterError: There is no such job.
        """
        load_remote(self.folder, job_id)
        return self._read_log(job_id, follow)

    def _read_log(self, job_id: str, follow: bool) -> Iterator[str]:
        log = self.folder / job_id / LOG
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        place = 0
        while True:
            last = not follow or not self.status(job_id).active
            if log.exists():
                with log.open("rb") as file:
                    file.seek(place)
                    while piece := file.read(1 << 16):
                        place += len(piece)
                        yield decoder.decode(piece)
            if last:
                yield decoder.decode(b"", final=True)
                return
            time.sleep(self.look_again_s)

    def _interrupt(self, info: JobInfo, patience_s: float) -> None:
        """Through its script, and by a cancel when that has not ended it in time."""
        if info.status == "running":
            _call("scancel", "--batch", "--signal=TERM", info.native_id)
            info = self._wait(info.id, patience_s)
        if info.active:
            _call("scancel", info.native_id)


def _read_exit(job: Path) -> tuple[int, float] | None:
    """Exit code and time that the script wrote at its end; None before."""
    try:
        code, when = (job / EXIT).read_text(encoding="ascii").split()
        return int(code), float(when)
    except (FileNotFoundError, ValueError):
        return None


def _look_up(native_id: str) -> tuple[str, str, str]:
    """State, reason and nodes of a job as Slurm tells them; empty where it has forgotten the job."""
    try:
        answer = _call("squeue", "--noheader", "--states=all", f"--jobs={native_id}", "--format=%T|%r|%N")
    except ClusterError as error:
        if "Invalid job id" in str(error):
            return "", "", ""
        raise
    if not answer.strip():
        return "", "", ""
    state, reason, nodes = answer.strip().splitlines()[-1].split("|", 2)
    return state, "" if reason == "None" else reason, nodes


def _call(*words: str, environment: dict[str, str] | None = None, given: str | None = None) -> str:
    """What a command of Slurm prints.

    Raises:
        ClusterError: It is not installed, does not answer, or refuses.
    """
    try:
        done = subprocess.run(
            words,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=ANSWER_S,
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"{words[0]} is not installed here: submit from a machine that has Slurm's commands"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"{words[0]} has not answered in {ANSWER_S:g} s: is the Slurm controller up?"
        ) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ClusterError("; ".join(lines[-2:]) or f"{words[0]} ended with exit code {done.returncode}")
    return done.stdout
