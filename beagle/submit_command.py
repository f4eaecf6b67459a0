"""`beagle submit`: a command handed over as a job."""

import os
from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json

JOBS = Path("runs") / "jobs"

# Options after the first word belong to the command that is submitted, with or without a `--` before it.
CONTEXT = {"allow_interspersed_args": False}

Nodes = Annotated[int, typer.Option("--nodes", help="Machines; several become one Ray cluster.")]
Cpus = Annotated[int | None, typer.Option("--cpus", help="CPUs of each machine.")]
Gpus = Annotated[int, typer.Option("--gpus", help="GPUs of each machine.")]
Memory = Annotated[float | None, typer.Option("--memory", help="GB of each machine.")]
Hours = Annotated[float | None, typer.Option("--hours", help="Longest time.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE: a setting of the place; may be repeated.")
]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", help="NAME of a variable that the job gets from here; its value is shown nowhere."),
]


def submit(
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="What follows `beagle`, after a `--`.")
    ],
    to: Annotated[str, typer.Option("--to", help="Where: local, slurm, ray or kubernetes.")] = "local",
    name: Annotated[str, typer.Option("--name", help="Of the job; by default the command's.")] = "",
    nodes: Nodes = 1,
    cpus: Cpus = None,
    gpus: Gpus = 0,
    memory: Memory = None,
    hours: Hours = None,
    retries: Annotated[
        int, typer.Option("--retries", help="New starts of a command that was killed, by the job itself.")
    ] = 2,
    settings: Set = None,
    env: Env = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look first whether the job will find what it needs.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a command as a job that outlives this terminal, and print the job's id.

    For example: beagle submit --to slurm --nodes 2 --gpus 8 --hours 12 -- evolve data.yaml --gpus 1

    Relative paths are meant from the current folder. The command is written down, the environment is not. An
    evolution that is started again, by the job or by `beagle jobs retry`, goes on where it stopped.
    """
    from beagle.folders import CommandError
    from beagle.job_words import needs_of, resumable
    from cluster.spec import JobSpec, Resources
    from cluster.submit import build_submitter

    place = build_submitter(to, JOBS, read_settings(settings))
    spec = JobSpec(
        resumable(tuple(words)) if to != "kubernetes" else tuple(words),
        Path.cwd(),
        name,
        read_environment(env),
        Resources(nodes, cpus, gpus, memory, hours),
        retries,
    )
    look = getattr(place, "check", None)
    if check and look is not None:
        lacking = look(spec, needs_of(spec.words, spec.folder))
        if lacking:
            raise CommandError("; ".join([*lacking, "(--no-check submits all the same)"]))
    job_id = place.submit(spec)
    if as_json:
        console.show_json(place.status(job_id).to_dict())
        return
    console.out.print(job_id)
    console.note(
        f"`beagle jobs logs {job_id} --follow` shows its output, `beagle jobs stop {job_id}` ends it"
    )


def read_settings(given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE texts as a mapping.

    Raises:
        CommandError: One has no `=`.
    """
    from beagle.folders import CommandError

    settings = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise CommandError(f"--set needs NAME=VALUE, but got {text!r}")
        settings[name] = value
    return settings


def read_environment(names: list[str] | None) -> dict[str, str]:
    """Variables of this process by their names.

    Raises:
        CommandError: One is not set here.
    """
    from beagle.folders import CommandError

    environment = {}
    for name in names or []:
        if "=" in name:
            raise CommandError(
                f"--env needs a variable's name alone ({name.partition('=')[0]}): its value comes from here"
            )
        if name not in os.environ:
            raise CommandError(f"--env {name}: there is no such variable here; set it first")
        environment[name] = os.environ[name]
    return environment
