"""`beagle submit`: a command handed over as a job."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console

JOBS = Path("runs") / "jobs"

# Options after the first word belong to the command that is submitted, with or without a `--` before it.
CONTEXT = {"allow_interspersed_args": False}


def submit(
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="What follows `beagle`, after a `--`.")
    ],
    to: Annotated[str, typer.Option("--to", help="Where it runs: local, on this machine.")] = "local",
    name: Annotated[str, typer.Option("--name", help="Of the job; by default the command's.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print how the job stands as JSON.")] = False,
) -> None:
    """Run a command as a job that outlives this terminal, and print the job's id.

    For example: beagle submit -- evolve digits --trials 20

    Relative paths are meant from the current folder. The command is written down, the environment is not.
    """
    from cluster.spec import JobSpec
    from cluster.submit import build_submitter

    place = build_submitter(to, JOBS)
    job_id = place.submit(JobSpec(tuple(words), Path.cwd(), name))
    if as_json:
        console.show_json(place.status(job_id).to_dict())
        return
    console.out.print(job_id)
    console.note(
        f"`beagle jobs logs {job_id} --follow` shows its output, `beagle jobs stop {job_id}` ends it"
    )
