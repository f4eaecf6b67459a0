"""An exported folder in MLflow's model registry."""

from pathlib import Path
from typing import Any

from evolve.journal import fold, read_journal
from evolve.mlflow_store import Store, TrackingError, answering, connect
from evolve.tracking import Mirror
from evolve.wording import belief_words

ARTIFACT = "export"


def register_export(run_folder: Path, export: Path, name: str, store: Store) -> int:
    """Log an exported folder with its run and make it the newest version of a registered model.

    The run is brought level first, so that the version can name it.

    Args:
        run_folder: Holds the journal.
        export: What `beagle export` wrote.
        name: Of the registered model; made where it does not exist.
        store: Of the run.

    Returns:
        The version's number; its tags say what the fitness was measured on.

    Raises:
        TrackingError: MLflow did not answer or refused.
        JournalError: The journal can't be read.
    """
    if not name.strip() or any(mark in name for mark in "/:"):
        raise TrackingError(f"a registered model's name must not be empty nor hold / or :, but got {name!r}")
    state = fold(read_journal(run_folder / "journal.jsonl"))
    mirror = Mirror(run_folder, store)
    mirror.push(state)
    best, measured = state.best(), state.measured()
    with answering(f"MLflow at {store.uri} did not take it"):
        client = connect(store.uri)
        client.log_artifacts(mirror.parent, str(export), ARTIFACT)
        _make(client, name)
        source = f"{client.get_run(mirror.parent).info.artifact_uri}/{ARTIFACT}"
        tags = {"beagle.run": state.name}
        if best is not None and measured is not None:
            tags |= {"beagle.trial": str(best.id), "beagle.fitness": str(measured.standing.mean)}
            tags["beagle.measured"] = belief_words(measured)
        version = client.create_model_version(name, source, mirror.parent, tags=tags)
        return int(version.version)


def _make(client: Any, name: str) -> None:
    """Make the registered model, unless there is one of that name."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
