"""`beagle sync`: fill in what MLflow missed."""

from beagle import console
from beagle.flags import Json
from beagle.status_command import Run


def sync(run: Run, as_json: Json = False) -> None:
    """Bring MLflow level with a run's journal; doing it twice doubles nothing."""
    from beagle.folders import find_run, tracking_folder
    from evolve.mlflow_store import default_store
    from evolve.tracking import sync as send

    folder = find_run(run)
    store = default_store(tracking_folder(folder))
    sent = send(folder, store)
    if as_json:
        console.show_json({"run": folder.name, "uri": store.uri, "values_sent": sent})
    else:
        console.done(f"MLflow at {store.uri} is level with {folder.name} ({sent} values sent)")
