"""The first line of a journal: written when all is settled, or not at all."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beagle.folders import CommandError
from evolve.confirm import Plan
from evolve.journal import Journal
from evolve.ladder import Ladder
from evolve.space import EvolveError


def begin_run(folder: Path, facts: Mapping[str, Any], check: Callable[[], object] | None) -> None:
    """Make a run folder whose journal holds the header.

    Args:
        folder: The run folder; its last part is the run's name.
        facts: What the header says: trials, seed, space, search, settings, resources, provenance and more.
        check: Called before anything is written; what it raises refuses the run.

    Raises:
        EvolveError: It can't be written; a folder that was made for it is gone again.
    """
    if check is not None:
        check()
    existed = folder.exists()
    try:
        with Journal(folder / "journal.jsonl") as journal:
            journal.append({"event": "run", "version": 1, "name": folder.name, **facts})
    except EvolveError:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)  # it would stand in the way of the next try
        raise


def fidelity_header(
    ladder: Ladder | None,
    confirm: Plan | None,
    patience: int | None = None,
    epoch_budget: int | None = None,
) -> dict[str, Any]:
    """What a header says of stopping and of confirming; nothing where all trials go to their end and that is all.

    Args:
        ladder: Where trials are judged.
        confirm: What is trained again at the end.
        patience: Trials without a better configuration after which the search ends.
        epoch_budget: Epochs of all trials after which the search ends.

    Raises:
        CommandError: There is no such patience or budget.
    """
    header: dict[str, Any] = {}
    for name, limit in (("patience", patience), ("epoch_budget", epoch_budget)):
        if limit is not None:
            if limit < 1:
                raise CommandError(f"{name} >= 1 must hold, but got {limit}")
            header[name] = limit
    if ladder is not None and ladder.judged:
        header["ladder"] = ladder.to_dict()
    if confirm is not None:
        header["confirm"] = confirm.to_dict()
    return header
