"""`beagle status`: how a run stands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beagle import console
from beagle.flags import Json

if TYPE_CHECKING:
    from evolve.journal import RunState

Run = Annotated[Path, typer.Argument(help="Run folder, its name under runs/, or its URL.")]


def status(
    run: Run,
    as_json: Json = False,
    most: Annotated[int, typer.Option("--most", help="Show at most this many trials; 0 for all.")] = 20,
) -> None:
    """Show how a run stands: trials, the best so far, and what failed."""
    from beagle.folders import as_given, find_run
    from evolve.control import driver_of
    from evolve.journal import TrialState, fold, read_journal
    from evolve.objectives import front
    from evolve.stored_run import run_label
    from evolve.wording import belief_words, progress_words

    folder = find_run(run)
    state = fold(read_journal(folder / "journal.jsonl"))
    best, measured, driver = state.best(), state.measured(), driver_of(folder)

    def row(trial: TrialState) -> dict[str, Any]:
        return {
            "trial": trial.id,
            "status": trial.status,
            "fitness": trial.fitness,
            "epochs": trial.epochs,
            "seconds": trial.seconds,
            "origin": trial.origin.get("kind", ""),
            "attempt": trial.attempt,
            "reason": trial.reason,
        }

    trials = [row(trial) for trial in state.trials.values()]
    if as_json:
        console.show_json(
            {
                "run": state.name,
                "folder": run_label(folder),
                "budget": state.budget,
                "finished": len(state.finished),
                "failed": len(state.failed),
                "stopped_early": len(state.cut),
                "running": len(state.running),
                "stopped": state.stopped,
                "enough": state.enough,
                "driver": driver,
                "best": None
                if best is None
                else {**row(best), "config": best.config, "metrics": best.metrics},
                "measured": None if measured is None else measured.to_dict(),
                "front": [{"trial": each.trial.id, **each.values} for each in front(state)],
                "trials": trials,
            }
        )
        return
    shown = sorted(trials, key=lambda t: -1.0 if t["fitness"] is None else t["fitness"], reverse=True)[
        : most or None
    ]
    columns = ["trial", "status", "fitness", "epochs", "seconds", "origin", "attempt", "reason"]
    console.show_table(
        f"{state.name}: {progress_words(state)}",
        columns,
        [[trial[column] for column in columns] for trial in shown],
    )
    if len(shown) < len(trials):
        console.note(f"{len(trials) - len(shown)} more (--most 0 shows all)")
    if driver is not None:
        console.note(f"driven by process {driver} (`beagle stop {as_given(run)}` ends it gently)")
    elif state.told < state.budget:
        why = f"stopped: {state.stopped}" if state.stopped else "nobody drives it any more"
        console.note(f"{why} (`beagle resume {as_given(run)}` goes on)")
    elif state.enough:
        console.note(f"the search ended early: {state.enough}")
    _show_front(state)
    if best is not None and measured is not None:
        genes = "  ".join(
            f"{name} {value if isinstance(value, str) else f'{value:g}'}"
            for name, value in best.config.items()
        )
        console.out.print(f"best: trial {best.id} with fitness {measured.standing.mean:.4f}: {genes}")
        console.note(belief_words(measured))


def _show_front(state: "RunState") -> None:
    """The trials that none beats, where several objectives are sought."""
    from evolve.objectives import front, pick

    choices = front(state)
    if not choices:
        return
    knee = pick(state, "knee").id
    names = list(choices[0].values)
    rows = [
        [each.trial.id, *each.values.values(), "knee" if each.trial.id == knee else ""] for each in choices
    ]
    console.show_table("Beaten by no other trial in every objective", ["trial", *names, ""], rows)
    console.note("`beagle export RUN --to FOLDER --pick knee` takes the knee, `--pick trial:N` another")
