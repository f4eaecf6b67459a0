"""Tune's hooks: what its loop asks and tells, handed on to the ledger. None ever raises: that would end the run."""

import json
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from evolve.ray_floor import Floor


class LedgerSearcher(Searcher):
    """Tune's questions, answered by the ledger. Hooks never raise: that would end the whole experiment."""

    def __init__(self, floor: Floor) -> None:
        super().__init__()
        self._floor = floor

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune's `trial_id`, None for not now, or FINISHED."""
        floor, ledger = self._floor, self._floor.ledger
        floor.look()  # Tune's loop rests while there is nothing to run, and asks all the same
        assignment = ledger.next_assignment() if not ledger.over and floor.has_room() else None
        if assignment is None:
            return str(Searcher.FINISHED) if ledger.over else None
        floor.place(trial_id, assignment)
        # What all trials have in common the workers know; a trial of another seed or length brings its own.
        common = ledger.state.header.get("settings", {})
        own = {key: value for key, value in assignment.settings.items() if common.get(key) != value}
        values = assignment.to_dict() | {"settings": own}
        return {"trial": assignment.trial, "assignment": json.dumps(values)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial that ends without an outcome was stopped, and stays open; errors go to the callback."""
        if not error:
            self._floor.leave(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the searcher's memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration into the storage folder; nothing reads it back


class LedgerCallback(Callback):
    """Where trials begin and end."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """A turn of Tune's loop: at least ten a second."""
        self._floor.look(trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins with a trial."""
        self._floor.started(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune is about to put a trial away."""
        self._floor.done_with(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An attempt failed, or its worker retired; Tune calls this before it asks for another."""
        self._floor.failed(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerStopper(Stopper):
    """Hears what trials report, before anyone else does, and ends those that are hopeless.

    When the run was asked to stop each trial ends at its next report, and all at once when the run can't go on.
    """

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends here, its checkpoint written."""
        return self._floor.take(trial_id, result)

    def stop_all(self) -> bool:
        """Whether every trial ends now."""
        return self._floor.now or self._floor.ledger.fault is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}
