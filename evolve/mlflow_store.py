"""Where MLflow is, and how it is asked: what its doors of this room share."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.space import EvolveError

EXPERIMENT = "beagle"
LONGEST_PARAM = 6000
"""Characters of a parameter's value that every store takes."""

# Without these MLflow's client asks a dead server for minutes, reports its own use to its makers, and prints two
# lines for every run.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class TrackingError(EvolveError):
    """MLflow can't be reached or refuses what it is given."""


@dataclass(frozen=True)
class Store:
    """Where a run's results go.

    Attributes:
        uri: MLflow tracking URI.
        artifacts: Folder of the artifacts for a store of our own; None leaves it to the server.
        experiment: Name of the MLflow experiment.
    """

    uri: str
    artifacts: Path | None = None
    experiment: str = EXPERIMENT


def default_store(runs: Path, environment: dict[str, str] | os._Environ[str] = os.environ) -> Store:
    """`MLFLOW_TRACKING_URI` where it is set, else a SQLite store in the folder that holds the runs.

    Args:
        runs: Folder of all runs.
        environment: Variables to look in.
    """
    uri = environment.get("MLFLOW_TRACKING_URI")
    experiment = environment.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    if uri:
        return Store(uri, experiment=experiment)
    runs = runs.resolve()
    return Store(f"sqlite:///{runs / 'mlflow.db'}", runs / "mlartifacts", experiment)


def connect(uri: str) -> Any:
    """A client of MLflow that gives up soon and says nothing by itself; nothing is sent yet.

    Args:
        uri: Tracking URI.
    """
    os.environ.update(ENVIRONMENT)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
    return MlflowClient(uri)


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn whatever MLflow raises within into one line.

    Args:
        what: The line's begin, such as "MLflow at URI did not answer".

    Raises:
        TrackingError: MLflow did not answer or refused.
    """
    os.environ.update(ENVIRONMENT)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow lets its database's errors through

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise TrackingError(f"{what}: {first_line[:200]}") from error


def find_experiment(client: Any, store: Store) -> str:
    """Id of the store's experiment, which is made where there is none."""
    known = client.get_experiment_by_name(store.experiment)
    if known is not None:
        return str(known.experiment_id)
    location = store.artifacts.as_uri() if store.artifacts else None
    return str(client.create_experiment(store.experiment, location))
