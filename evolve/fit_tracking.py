"""A fit of anchors as an MLflow run of its own, beside the runs of evolutions."""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.tracking import ENVIRONMENT, Store, TrackingError

RUN_NAME = "anchors"


def log_fit(
    store: Store, params: Mapping[str, Any], metrics: Mapping[str, float], files: Mapping[str, bytes]
) -> str:
    """Log what was fitted, its figures and its pictures.

    Args:
        store: Where to.
        params: Plain values by name.
        metrics: Numbers by name.
        files: Contents by file name.

    Returns:
        The id of the MLflow run.

    Raises:
        TrackingError: MLflow did not answer or refused.
    """
    os.environ.update(ENVIRONMENT)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow lets its database's errors through

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
    try:
        if store.artifacts is not None:
            store.artifacts.parent.mkdir(parents=True, exist_ok=True)
        client: Any = MlflowClient(store.uri)
        known = client.get_experiment_by_name(store.experiment)
        location = store.artifacts.as_uri() if store.artifacts else None
        experiment = known.experiment_id if known else client.create_experiment(store.experiment, location)
        run_id = str(client.create_run(experiment, run_name=RUN_NAME).info.run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)[:6000]) for name, value in params.items()],
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
                client.log_artifact(run_id, str(Path(folder) / name))
        client.set_terminated(run_id)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise TrackingError(f"MLflow at {store.uri} did not take it: {first_line[:200]}") from error
    return run_id
