"""`beagle jobs`: how submitted jobs stand, what they print, and ending them."""

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beagle import console
from beagle.flags import Json
from beagle.submit_command import JOBS, Env, read_environment

if TYPE_CHECKING:
    from cluster.book import JobBook
    from cluster.spec import JobInfo

app = typer.Typer()

Job = Annotated[str, typer.Argument(help="Id that `beagle submit` printed; see `beagle jobs list`.")]


@app.command("list")
def list_jobs(as_json: Json = False) -> None:
    """List all jobs that were submitted from this folder, oldest first."""
    jobs = _book().list()
    if as_json:
        console.show_json([job.to_dict() for job in jobs])
        return
    rows = [
        [
            job.id,
            job.place,
            job.status,
            job.exit_code,
            _when(job.started_at),
            _seconds(job),
            job.detail,
            _words(job),
        ]
        for job in jobs
    ]
    console.show_table(
        "Jobs", ["job", "place", "status", "exit code", "started", "seconds", "detail", "command"], rows
    )


@app.command("show")
def show_job(job: Job, as_json: Json = False) -> None:
    """Show how a job stands."""
    _show(_book().status(job), as_json)


@app.command("logs")
def show_logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print what a job has printed. Ctrl-C ends --follow, not the job."""
    try:
        for piece in _book().logs(job, follow):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except (
        BrokenPipeError
    ):  # the reader, `head` say, has had enough; Python must not flush into the pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command("stop")
def stop_job(
    job: Job,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds that it may take to stop gently.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """End a job: as Ctrl-C does at first, by force when that does not help."""
    book = _book()
    if not book.status(job).active:
        console.note(f"{job} has ended already")
    _show(book.stop(job, patience), as_json)


@app.command("retry")
def retry_job(job: Job, env: Env = None, as_json: Json = False) -> None:
    """Hand a job that has ended over once more: an evolution goes on where it stopped."""
    from cluster.book import with_environment

    book = _book()
    new = book.retry(job, with_environment(book.spec(job), read_environment(env)))
    if as_json:
        console.show_json(book.status(new).to_dict())
        return
    console.out.print(new)


def _book() -> "JobBook":
    from cluster.book import JobBook

    return JobBook(JOBS)


def _show(job: "JobInfo", as_json: bool) -> None:
    if as_json:
        console.show_json(job.to_dict())
        return
    rows: list[list[Any]] = [
        ["status", job.status],
        ["exit code", job.exit_code],
        ["command", _words(job)],
        ["folder", job.folder],
        ["started", _when(job.started_at)],
        ["seconds", _seconds(job)],
        ["place", job.place],
        ["process", f"{job.pid} on {job.host}" if job.pid else f"{job.native_id} on {job.host or '-'}"],
        ["log", job.log],
        ["detail", job.detail],
    ]
    console.show_table(job.id, ["what", "value"], rows)
    if job.status == "lost":
        console.note(
            "it left no exit code: the machine went down, its keeper was killed, or it is on another machine"
        )


def _words(job: "JobInfo") -> str:
    return shlex.join(["beagle", *job.words])


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _seconds(job: "JobInfo") -> str | None:
    if job.active:
        return f"{time.time() - job.started_at:.0f}"
    return None if job.ended_at is None else f"{job.ended_at - job.started_at:.0f}"
