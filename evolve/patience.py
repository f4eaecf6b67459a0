"""When a search has had enough: so many trials in a row that gave nothing better than what was known before.

As patience ends a training that does not get better, it ends an evolution that does not. What is counted is what the
journal holds, so a killed driver's successor counts the same.
"""

from evolve.objectives import front
from evolve.run_state import RunState
from evolve.trial_state import Event


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


def enough_event(state: RunState) -> Event | None:
    """The event that ends a search whose patience is used up; None where it goes on."""
    if state.patience is None or fruitless(state) < state.patience:
        return None
    return {"event": "enough", "reason": f"the last {state.patience} trials gave nothing better"}
