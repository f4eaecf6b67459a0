"""`beagle confirm`: the best of a run, trained again in full under new seeds."""

from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json
from beagle.resume_command import finish
from beagle.status_command import Run


def confirm(
    run: Run,
    top: Annotated[int, typer.Option("--top", help="How many of the best; the start is trained too.")] = 3,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of each training; the trials' full length by default.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each.")] = 3,
    cpus: Annotated[float | None, typer.Option("--cpus", help="CPUs per training from now on.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", help="GPUs per training from now on.")] = None,
    concurrent: Annotated[int | None, typer.Option("--concurrent", help="Most trainings at once.")] = None,
    address: Annotated[str | None, typer.Option("--ray-address", help="Another Ray cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Train the best again in full under new seeds: what export may promise."""
    from beagle.folders import find_run
    from beagle.reopening import begin_confirmation
    from evolve.confirm import Plan

    folder = find_run(run, to_drive=True)
    changes = {"cpus": cpus, "gpus": gpus, "concurrent": concurrent, "address": address}
    given = {name: value for name, value in changes.items() if value is not None}
    state = begin_confirmation(folder, Plan(top, epochs, seeds), given, console.note)
    last = state.confirmations[-1]
    names = ", ".join(map(str, last.of))
    console.err.print(
        f"{state.name}: {last.trainings} trainings of {last.epochs} epochs to confirm trials {names}"
    )
    finish(folder, as_json=as_json)
