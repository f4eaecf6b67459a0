"""A driver with an audience: what is running, what is best, and MLflow kept level."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from beagle import console
from evolve.journal import Event, RunState, TrialState
from evolve.live_tracking import LiveMirror
from evolve.mlflow_store import Store
from evolve.space import EvolveError
from evolve.stored_run import publish, run_label
from evolve.tracking import ANCHOR_PICTURE
from evolve.wording import duration

REFRESH_S = 0.4  # a thousand trials report faster than anyone reads
SHOWN = 40


def drive_live(
    folder: Path, store: Store, run: Callable[[Callable[[Event, RunState], None]], RunState]
) -> RunState:
    """Drive a run to its end, shown as it goes; then write its report.

    Where stderr is no terminal, each finished trial is one line.

    Args:
        folder: The run folder.
        store: Where MLflow's copy goes.
        run: Drives the evolution; it is handed the listener that it must call after each event.

    Returns:
        The run's state at the end.
    """
    from evolve.report import write_report

    mirror = LiveMirror(folder, store)
    mirror.start()
    live = (
        Live(console=console.err, refresh_per_second=2, transient=True) if console.err.is_terminal else None
    )

    shown_at = 0.0

    def listen(event: Event, state: RunState) -> None:
        nonlocal shown_at
        if event["event"] in ("tell", "retry"):
            console.err.print(escape(event_line(event, state)))
        if live is not None and time.monotonic() - shown_at > REFRESH_S:
            shown_at = time.monotonic()
            live.update(running_table(state))

    try:
        with live or nullcontext():
            state = run(listen)
    finally:
        try:
            write_report(folder)
            publish(folder, "report.html", ANCHOR_PICTURE)
        except EvolveError as error:
            console.note(f"no report: {error}")
        problem = mirror.close()
        if problem is not None:
            console.note(f"{problem} (`beagle sync {run_label(folder)}` fills in what is missing)")
    return state


def event_line(event: Event, state: RunState) -> str:
    """A trial's end or retry, as one line."""
    trial = state.trials[event["trial"]]
    if event["event"] == "retry":
        return f"trial {trial.id}: attempt {trial.attempt + 1}, because {event['reason']}"
    told = state.told
    if trial.fitness is None:
        how = "stopped" if trial.status == "stopped" else "failed"
        return f"trial {trial.id} ({told}/{state.budget}) {how}: {trial.reason}"
    best = state.best()
    mark = "  best so far" if best is not None and best.id == trial.id else ""
    seconds = f"{trial.seconds:.0f} s" if trial.seconds else ""
    result = f"trial {trial.id} ({told}/{state.budget}) fitness {trial.fitness:.4f}"
    return f"{result}  {origin_text(trial)}  {seconds}{mark}"


def origin_text(trial: TrialState) -> str:
    """How a trial was bred, in a few words."""
    kind = str(trial.origin.get("kind", ""))
    parents = trial.origin.get("parents") or []
    return f"{kind} of {', '.join(map(str, parents))}" if parents else kind


def seconds_to_go(state: RunState) -> float | None:
    """About how long the rest of the budget takes at the present pace; None before the first trial has ended."""
    spent = [trial.seconds for trial in [*state.finished, *state.cut] if trial.seconds]
    if not spent or not state.running:
        return None
    mean = sum(spent) / len(spent)
    begun = sum(min(max(time.time() - trial.asked_at, 0.0), mean) for trial in state.running)
    left = (state.budget - state.told) * mean - begun
    return max(left, 0.0) / len(state.running)


def _rest(state: RunState) -> str:
    """What each trial has, and how long it will take still."""
    gpus, left = state.resources.get("gpus") or 0, seconds_to_go(state)
    has = f"{state.resources.get('cpus', 1):g} CPU" + (f", {gpus:g} GPU" if gpus else "")
    return f"; {has} each" + (f"; about {duration(left)} to go" if left is not None else "")


def running_table(state: RunState) -> Table:
    """The trials that run now, and the best so far."""
    best, measured = state.best(), state.measured()
    headline = f"{state.name}: {state.told} of {state.budget} trials"
    if best is not None and measured is not None:
        headline += f", best {measured.standing.mean:.4f} (trial {best.id})"
    headline += _rest(state)
    table = Table(title=headline, title_justify="left", title_style="bold")
    for column in ("trial", "epoch", "fitness", "mAP@0.5", "running for", "origin"):
        table.add_column(column, justify="left" if column == "origin" else "right")
    epochs = state.header.get("settings", {}).get("epochs", "?")
    for trial in state.running[:SHOWN]:
        last: dict[str, Any] = trial.reports[max(trial.reports)] if trial.reports else {}
        table.add_row(
            str(trial.id),
            f"{len(trial.reports)}/{trial.origin.get('epochs', epochs)}",
            console.cell_text(last.get("fitness")),
            console.cell_text(last.get("map50")),
            f"{max(time.time() - trial.asked_at, 0):.0f} s",
            origin_text(trial),
        )
    if len(state.running) > SHOWN:
        table.caption = f"and {len(state.running) - SHOWN} more"
    return table
