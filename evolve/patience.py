"""When a search has had enough: its trials in a row gave nothing better, or have used the epochs that they may.

As patience ends a training that does not get better, it ends an evolution that does not. A budget of epochs ends it
where a night, or an account of GPU hours, does. What is counted is what the journal holds, so a killed driver's
successor counts the same.
"""

from statistics import fmean

from evolve.objectives import front
from evolve.run_state import RunState
from evolve.trial_state import Event

_NEWEST = 30  # of the trials that have ended, which tell how far one comes


def fruitless(state: RunState) -> int:
    """How many configurations were tried in vain since the one that leads, or since the search ended before.

    A configuration that leads after its repetitions counts from its first trial, and repetitions count as no try.
    With several objectives a trial that joins the front counts as a gain.

    Args:
        state: of the run.

    Returns:
        Trials that have ended, with a fitness or without; 0 before the first fitness.
    """
    leading = [each.trial.id for each in front(state)] or [each.trial for each in state.standings()[:1]]
    if not leading:
        return 0
    since = max(*leading, state.had_enough - 1)
    return sum(
        trial.id > since and trial.status != "running" and trial.replicates_of is None
        for trial in state.searched
    )


def expected_epochs(state: RunState) -> float:
    """Epochs that the search's trials have used, and those that the running ones will have used in the end.

    A running trial is expected to come as far as the newest did that came as far as it has; where none did, to its
    full length. Trials that confirm are left out.
    """
    ended = [trial.epochs for trial in state.searched if trial.status != "running"]
    running = [trial.epochs for trial in state.searched if trial.status == "running"]
    full = int(state.header.get("settings", {}).get("epochs") or 0)
    newest = [epochs for epochs in ended[-_NEWEST:] if epochs]

    def end(epochs: int) -> float:
        return fmean([each for each in newest if each >= epochs] or [max(full, epochs)])

    return sum(ended) + sum(map(end, running))


def enough_event(state: RunState) -> Event | None:
    """The event that ends a search whose patience or budget of epochs is used up; None where it goes on."""
    if state.patience is not None and fruitless(state) >= state.patience:
        return {"event": "enough", "reason": f"the last {state.patience} trials gave nothing better"}
    if state.epoch_budget is not None and expected_epochs(state) >= state.epoch_budget:
        return {"event": "enough", "reason": f"the budget of {state.epoch_budget} epochs is used up"}
    return None
