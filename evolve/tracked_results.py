"""What stands in MLflow already: results of an experiment, and the metrics that a command logged by itself."""

import logging
from pathlib import Path

from evolve.mlflow_store import Store, TrackingError, answering, connect
from evolve.warm_start import Result

logger = logging.getLogger(__name__)

RUNS_PER_PAGE = 1000
COMMAND_TAG = "beagle.command"


def experiment_results(store: Store, experiment: str) -> list[Result] | None:
    """Parameters and fitness of an MLflow experiment's runs, whoever logged them.

    Args:
        store: Where MLflow is.
        experiment: Its name.

    Returns:
        The runs with a metric `best_fitness` or `fitness`; None where there is no such experiment.

    Raises:
        TrackingError: MLflow did not answer or refused.
    """
    results, token = [], None
    with answering(f"MLflow at {store.uri} did not answer"):
        client = connect(store.uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        while True:
            page = client.search_runs([found.experiment_id], max_results=RUNS_PER_PAGE, page_token=token)
            for run in page:
                fitness = run.data.metrics.get("best_fitness", run.data.metrics.get("fitness"))
                if fitness is not None:
                    results.append(Result(dict(run.data.params), float(fitness)))
            token = page.token
            if not token:
                return results


def make_store(uri: str) -> None:
    """Make a SQLite store that is not there yet, before a command and its reader both would, at the same time.

    Args:
        uri: Tracking URI; one that is no SQLite file is left alone.

    Raises:
        TrackingError: It can't be made.
    """
    database = uri.removeprefix("sqlite:///")
    if database == uri or Path(database).is_file():
        return
    with answering(f"{uri}: the store can't be made"):
        connect(uri).search_experiments()


def read_metrics(uri: str, tag: str) -> list[dict[str, float]]:
    """Metrics of the MLflow runs that a command logged for one trial, a row per step.

    Args:
        uri: Tracking URI.
        tag: What the command's environment tells MLflow's client to tag its runs with, under `COMMAND_TAG`.

    Returns:
        Rows in the order of the steps, with "step"; of several runs the newer one's values count. Empty while there
        is no run, or no answer.
    """
    from mlflow.entities import ViewType

    rows: dict[int, dict[str, float]] = {}
    try:
        with answering(f"MLflow at {uri} gave no metrics"):
            client = connect(uri)
            ids = [experiment.experiment_id for experiment in client.search_experiments(ViewType.ALL)]
            wanted = f"tags.`{COMMAND_TAG}` = '{tag}'"
            for run in client.search_runs(ids, wanted, order_by=["attributes.start_time ASC"]):
                for name in run.data.metrics:
                    for point in client.get_metric_history(run.info.run_id, name):
                        rows.setdefault(point.step, {"step": float(point.step)})[name] = point.value
    except TrackingError as error:
        logger.info("%s", error)
    return [rows[step] for step in sorted(rows)]
