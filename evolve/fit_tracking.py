"""A fit of anchors as an MLflow run of its own, beside the runs of evolutions."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.mlflow_store import LONGEST_PARAM, Store, answering, connect, find_experiment

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
    from mlflow.entities import Metric, Param

    with answering(f"MLflow at {store.uri} did not take it"):
        if store.artifacts is not None:
            store.artifacts.parent.mkdir(parents=True, exist_ok=True)
        client = connect(store.uri)
        run_id = str(client.create_run(find_experiment(client, store), run_name=RUN_NAME).info.run_id)
        client.log_batch(
            run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)[:LONGEST_PARAM]) for name, value in params.items()],
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
                client.log_artifact(run_id, str(Path(folder) / name))
        client.set_terminated(run_id)
    return run_id
