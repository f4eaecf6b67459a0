"""`beagle resume`, and how a run is driven to its end and what came of it is said."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beagle import console
from beagle.flags import Json, Silence

if TYPE_CHECKING:
    from evolve.journal import RunState


def resume(
    run: Annotated[Path, typer.Argument(help="Run folder, its name under runs/, or its URL.")],
    trials: Annotated[int | None, typer.Option("--trials", help="New budget, more than before.")] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="As of `evolve`, from now on; 0 for none.")
    ] = None,
    epoch_budget: Annotated[
        int | None,
        typer.Option("--epoch-budget", help="As of `evolve`, those used so far included; 0 for none."),
    ] = None,
    cpus: Annotated[float | None, typer.Option("--cpus", help="CPUs per trial from now on.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", help="GPUs per trial from now on.")] = None,
    concurrent: Annotated[int | None, typer.Option("--concurrent", help="Most trials at once.")] = None,
    retries: Annotated[int | None, typer.Option("--retries", help="New attempts of a trial.")] = None,
    address: Annotated[str | None, typer.Option("--ray-address", help="Another Ray cluster.")] = None,
    silence: Silence = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed; finished trials are not run again."""
    from beagle.folders import find_run
    from beagle.reopening import reopen_run
    from evolve.wording import progress_words

    folder = find_run(run, to_drive=True)
    changes: dict[str, float | str | None] = {"cpus": cpus, "gpus": gpus, "concurrent": concurrent}
    changes |= {"retries": retries, "address": address, "silence_s": silence}
    given = {name: value for name, value in changes.items() if value is not None}
    state = reopen_run(folder, trials, given, patience, epoch_budget)
    console.err.print(f"{state.name}: {progress_words(state, 'to go on with')}")
    finish(folder, as_json=as_json)


def finish(folder: Path, *, as_json: bool) -> "RunState":
    """Drive a run to its end and say what came of it."""
    from beagle.folders import tracking_folder
    from beagle.live import drive_live
    from beagle.wiring import drive
    from evolve.mlflow_store import default_store
    from evolve.stored_run import run_label
    from evolve.wording import belief_words

    store = default_store(tracking_folder(folder))
    run = run_label(folder)
    state = drive_live(folder, store, lambda listen: drive(folder, listen))
    best, measured = state.best(), state.measured()
    if as_json:
        console.show_json(
            {
                "run": run,
                "finished": len(state.finished),
                "failed": len(state.failed),
                "stopped_early": len(state.cut),
                "stopped": state.stopped,
                "enough": state.enough,
                "best_trial": best.id if best else None,
                "fitness": measured.standing.mean if measured else None,
                "measured": measured.to_dict() if measured else None,
                "config": best.config if best else None,
                "report": folder / "report.html",
                "tracking_uri": store.uri,
            }
        )
        return state
    if state.stopped:
        console.done(
            f"stopped: {state.told} of {state.budget} trials are done, {len(state.running)} to go on with "
            f"(`beagle resume {run}`)"
        )
    elif state.enough:
        console.note(
            f"the search ended after {state.asked} trials: {state.enough} (`beagle resume {run} --trials N` goes on)"
        )
    if best is not None and measured is not None:
        gain = f", the default's is {measured.start.mean:.4f}" if measured.start is not None else ""
        console.done(f"best: trial {best.id} with fitness {measured.standing.mean:.4f}{gain}")
        console.note(belief_words(measured))
    console.out.print(f"report   {folder / 'report.html'}")
    shown = store.uri if store.uri.startswith("http") else f"mlflow ui --backend-store-uri {store.uri}"
    console.out.print(f"MLflow   {shown}")
    console.out.print(f"export   beagle export {run} --to production")
    return state
