"""`beagle stop`: end a run gently, from any process that sees its folder."""

import time
from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json


def stop(
    run: Annotated[Path, typer.Argument(help="Run folder, its name under runs/, or its URL.")],
    now: Annotated[
        bool, typer.Option("--now", help="Do not let the running trials end their epoch.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the driver has ended.")] = True,
    as_json: Json = False,
) -> None:
    """Stop a run: its trials end their epoch and keep their checkpoints, and `beagle resume` goes on with them."""
    from beagle.folders import CommandError, as_given, find_run
    from evolve.control import ask_to_stop, driver_of, forget_stop
    from evolve.journal import fold, read_journal
    from evolve.stored_run import run_label

    folder = find_run(run)
    driver = driver_of(folder)
    if driver is None:
        state = fold(read_journal(folder / "journal.jsonl"))
        done = state.told >= state.budget
        hint = "it has used up its trials" if done else f"`beagle resume {as_given(run)}` goes on with it"
        raise CommandError(f"{state.name}: nobody drives this run, so there is nothing to stop ({hint})")
    ask_to_stop(folder, "now" if now else "gently")
    if wait:
        console.note(f"asked process {driver}; " + ("it ends" if now else "each trial ends its epoch"))
        while driver_of(folder) == driver:
            time.sleep(0.3)
        forget_stop(folder)  # a driver that was killed meanwhile left it
        folder = find_run(run)
    state = fold(read_journal(folder / "journal.jsonl"))
    if as_json:
        values = {"run": run_label(folder), "asked": driver, "stopped": state.stopped, "told": state.told}
        console.show_json({**values, "open": len(state.running), "budget": state.budget})
    elif wait:
        console.done(
            f"{state.name} stopped: {state.told} of {state.budget} trials are done, {len(state.running)} "
            f"to go on with (`beagle resume {as_given(run)}`)"
        )
    else:
        console.done(f"asked process {driver} to stop {state.name}")
