"""Options of how long trials are, which of them end early, and what is confirmed."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evolve.confirm import Plan
    from evolve.ladder import Ladder

Epochs = Annotated[
    str,
    typer.Option(
        "--epochs", help="Of each trial; 10,30,100 stops hopeless trials after 10 and 30 epochs of 100."
    ),
]
Grace = Annotated[
    int | None,
    typer.Option("--grace", help="Epochs before a trial may be stopped; makes a ladder up to --epochs."),
]
Reduction = Annotated[
    float, typer.Option("--reduction", help="One trial in so many goes on at each rung of the ladder.")
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience", help="End the search when so many trials in a row gave no better configuration."
    ),
]
EpochBudget = Annotated[
    int | None,
    typer.Option("--epoch-budget", help="End the search when its trials have used so many epochs in all."),
]
Confirm = Annotated[
    int,
    typer.Option("--confirm", help="Train so many of the best again in full at the end, beside the start."),
]
ConfirmEpochs = Annotated[
    int | None,
    typer.Option("--confirm-epochs", help="Of these trainings; the trials' full length by default."),
]
ConfirmSeeds = Annotated[
    int, typer.Option("--confirm-seeds", help="Trainings of each, under seeds that no trial had.")
]


def chosen_ladder(epochs: str, grace: int | None, reduction: float) -> "Ladder":
    """The ladder that the options speak of; of one rung where no trial is to be stopped.

    Raises:
        EvolveError: There is no such ladder.
    """
    from evolve.ladder import Ladder

    return Ladder.parse(epochs, grace, reduction)


def chosen_plan(top: int, epochs: int | None, seeds: int) -> "Plan | None":
    """What is confirmed; None for nothing.

    Raises:
        EvolveError: A number is out of its range.
    """
    from evolve.confirm import Plan

    return Plan(top, epochs, seeds) if top else None
