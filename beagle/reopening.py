"""A run that goes on: with another budget, other resources or other limits, or to confirm its best."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beagle.folders import CommandError
from evolve.confirm import Plan, confirm_event
from evolve.journal import Journal, RunState, fold, read_journal
from evolve.resources import Resources


def reopen_run(
    folder: Path,
    trials: int | None,
    changes: Mapping[str, Any] | None = None,
    patience: int | None = None,
    epoch_budget: int | None = None,
) -> RunState:
    """Write into the journal that the run goes on, with a new budget, resources and limits where they are given.

    Args:
        folder: The run folder.
        trials: New budget; None keeps the old one.
        changes: Fields of `evolve.resources.Resources` to their new values.
        patience: Trials without a better configuration after which the search ends; 0 for none, None for the old one.
        epoch_budget: Epochs of all trials after which the search ends; 0 for none, None for the old one.

    Raises:
        CommandError: The new budget is smaller than the number of trials already asked, a limit below 0, or the
            search, which has had enough, gets another limit but no larger budget.
        JournalError: Another driver holds the run.
        EvolveError: The resources make no sense.
    """
    with Journal(folder / "journal.jsonl") as journal:
        state = fold(read_journal(journal.path))
        if trials is not None and trials < state.asked:
            raise CommandError(
                f"trials >= {state.asked} must hold, since so many were asked, but got {trials}"
            )
        limits = {
            name: limit
            for name, limit in (("patience", patience), ("epoch_budget", epoch_budget))
            if limit is not None
        }
        for name, limit in limits.items():
            if limit < 0:
                raise CommandError(f"{name} >= 0 must hold (0 for none), but got {limit}")
            if state.enough and (trials is None or trials <= state.asked):
                raise CommandError(
                    f"the search ended after {state.asked} trials: another --{name.replace('_', '-')} needs a larger "
                    "--trials too"
                )
        # Trainings that confirm are no trials of the search, and come on top.
        budget = state.budget if trials is None else trials + state.planned
        event: dict[str, Any] = {"event": "resume", "trials": budget, **limits}
        if changes:
            event["resources"] = replace(Resources.of(state), **changes).to_dict()
        state.apply(journal.append(event))
        return state


def begin_confirmation(
    folder: Path, plan: Plan, changes: Mapping[str, Any], note: Callable[[str], None]
) -> RunState:
    """Write into the journal which of a run's best are to be trained again; the search asks nothing more.

    Args:
        folder: The run folder.
        plan: How many, how long, under how many seeds.
        changes: As `reopen_run`.
        note: Told what is left of the search.

    Raises:
        EvolveError: No trial has finished, another driver holds the run, or the resources make no sense.
    """
    state = fold(read_journal(folder / "journal.jsonl"))
    confirm_event(state, plan)  # refused before anything is written
    left = state.budget - state.planned - state.asked
    if left > 0:
        note(
            f"{left} trials of the search were not asked yet and are left out; later "
            f"`beagle resume {folder} --trials {state.asked + left}` goes on with them"
        )
    reopen_run(folder, min(state.asked, state.budget - state.planned), changes)
    with Journal(folder / "journal.jsonl") as journal:
        state = fold(read_journal(journal.path))
        state.apply(journal.append(confirm_event(state, plan)))
        return state
