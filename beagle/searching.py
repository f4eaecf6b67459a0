"""Which search a run uses, and what it is told of earlier ones: `--search` and `--warm-start`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from beagle.folders import CommandError, find_run
from evolve import SearchSettings, Space, build_search
from evolve.costs import check_objectives
from evolve.warm_start import Earlier, load_earlier

GENETIC = "genetic"


def search_header(
    search: str,
    warm_start: str | None,
    space: Space,
    wh_px: ArrayLike | None,
    note: Callable[[str], None],
    *,
    racing: bool = True,
    objectives: tuple[str, ...] = (),
) -> dict[str, Any]:
    """What a journal's header says of the search.

    Args:
        search: "genetic", or a sampler of Optuna (see `evolve.samplers.SAMPLERS`).
        warm_start: A run, an `evolve.csv`, a `tune_results.ndjson` or an MLflow experiment's name; None: nothing.
        space: The genes.
        wh_px: (N, 2) boxes of the data set at the image size; None where there are none.
        note: Told what was taken in, and how alike the data sets are.
        racing: Whether leaders are repeated within the search. Under a ladder they would use up what it saves: there
            the best are confirmed at the end.
        objectives: Several of `evolve.costs`; empty for fitness alone.

    Raises:
        CommandError: Earlier results or several objectives are given to a search that cannot use them.
        EvolveError: There is no such sampler, or the earlier results cannot be read.
    """
    if objectives and (search != GENETIC or warm_start):
        other = f"--search {search}" if search != GENETIC else "--warm-start"
        raise CommandError(f"--objectives is for --search {GENETIC} alone, but {other} is given")
    if search != GENETIC:
        if warm_start:
            raise CommandError(f"--warm-start is for --search {GENETIC}, but the search is {search}")
        settings: dict[str, Any] = {"sampler": search}
        build_search(space, 0, settings)  # refused now rather than when the driver starts
        return settings
    settings = (SearchSettings() if racing else SearchSettings(replicas=1)).to_dict()
    if warm_start:
        earlier = _earlier(warm_start, space, wh_px)
        note(earlier.note)
        settings["earlier"] = earlier.to_dict()
    if objectives:
        settings["objectives"] = list(check_objectives(objectives))
        settings["replicas"] = 1  # as `ParetoSearch` has it
    return settings


def _earlier(source: str, space: Space, wh_px: ArrayLike | None) -> Earlier:
    """Earlier results of a file, of a run, or of an MLflow experiment, whichever there is."""
    path = Path(source)
    if path.is_file():
        return load_earlier(path, space, wh_px)
    try:
        return load_earlier(find_run(path), space, wh_px)
    except CommandError:
        from evolve.mlflow_store import default_store
        from evolve.tracked_results import experiment_results

        results = experiment_results(default_store(Path("runs")), source)
    if results is None:
        raise CommandError(f"{source}: there is no such file, run or MLflow experiment to start from")
    return load_earlier(path, space, wh_px, results)
