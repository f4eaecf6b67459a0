"""A run's journal, mirrored in MLflow as one parent run with a child per trial.

Mirroring is a comparison of the journal with what the server holds, so there is one way of doing it: the live driver
does it again and again in a thread (`evolve.live_tracking`), `beagle sync` does it once, and both may be repeated
without doubling anything.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evolve.journal import RunState, TrialState, fold, read_journal
from evolve.ledger import trial_folder
from evolve.mlflow_store import LONGEST_PARAM, Store, TrackingError, answering, connect, find_experiment
from evolve.report_view import anchor_metric, box_shapes
from evolve.stored_trial import bring
from evolve.trainable import FAILURE_NOTE
from evolve.wording import belief_words

RUN_TAG = "beagle.run_id"
TRIAL_TAG = "beagle.trial"
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
ANCHOR_PICTURE = "anchors.png"
"""In a run folder: the anchors before and after their fit."""
ANCHOR_FIGURES = ("bpr", "aat", "fitness", "mean_best_ratio", "mean_best_iou")
ANCHOR_METRIC = "anchors.after.fitness"  # where a run has it, all of them were sent


@dataclass
class _Child:
    run_id: str
    epochs: set[int] = field(default_factory=set)
    closed: bool = False


class Mirror:
    """Brings MLflow level with a run's journal. Not for several threads at once."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Nothing is sent yet.

        Args:
            folder: The run folder.
            store: Where to send.
        """
        self._folder = folder.resolve()
        self._store = store
        self._client: Any = None
        self._run_key = ""
        self._parent: str | None = None
        self._experiment: str | None = None
        self._children: dict[int, _Child] = {}
        self._best_logged = -1
        self.sent = 0

    @property
    def parent(self) -> str:
        """The id of the parent run in MLflow, once something was pushed.

        Raises:
            TrackingError: Nothing was.
        """
        if self._parent is None:
            raise TrackingError("a run must be pushed before its parent is known")
        return self._parent

    def push(self, state: RunState, *, final: bool = False) -> None:
        """Send what MLflow does not hold yet.

        Args:
            state: The fold of the journal.
            final: No more will come: stale runs are closed, and the report goes along.

        Raises:
            TrackingError: MLflow did not answer or refused; what was sent stays, the rest is sent by the next push.
        """
        with answering(f"MLflow at {self._store.uri} did not take it"):
            if self._parent is None:
                self._open(state)
            for trial in state.trials.values():
                self._push_trial(trial)
            self._push_best(state)
            if final:
                self._finish(state)

    def _open(self, state: RunState) -> None:
        from mlflow.entities import ViewType

        self._client = connect(self._store.uri)
        self._experiment = find_experiment(self._client, self._store)
        self._run_key = run_key(state)
        wanted = f"tags.`{RUN_TAG}` = '{self._run_key}'"
        found = self._client.search_runs([self._experiment], wanted, ViewType.ALL, max_results=50_000)
        parents = [run for run in found if TRIAL_TAG not in run.data.tags]
        self._parent = self._recall_parent(parents[0], state) if parents else self._create_parent(state)
        if not (parents and ANCHOR_METRIC in parents[0].data.metrics):
            self._push_anchors(state)
        self._children = {
            int(run.data.tags[TRIAL_TAG]): self._recall(run) for run in found if TRIAL_TAG in run.data.tags
        }

    def _recall_parent(self, run: Any, state: RunState) -> str:
        run_id = str(run.info.run_id)
        history = self._client.get_metric_history(run_id, "best_fitness") if run.data.metrics else []
        self._best_logged = max((point.step for point in history), default=-1)
        if run.info.status != "RUNNING" and (state.running or len(state.trials) < state.budget):
            self._client.update_run(run_id, status="RUNNING")  # it was ended, and goes on
        return run_id

    def _recall(self, run: Any) -> _Child:
        history = self._client.get_metric_history(run.info.run_id, "fitness") if run.data.metrics else []
        return _Child(run.info.run_id, {point.step for point in history}, run.info.status != "RUNNING")

    def _create_parent(self, state: RunState) -> str:
        header = state.header
        run = self._client.create_run(
            self._experiment,
            start_time=_milliseconds(header["time"]),
            run_name=state.name,
            tags={RUN_TAG: self._run_key, "beagle.folder": self._folder.name},
        )
        settings = {**header.get("settings", {}), **header.get("provenance", {}), "seed": header.get("seed")}
        self._log_params(run.info.run_id, _flat(settings))
        return str(run.info.run_id)

    def _push_anchors(self, state: RunState) -> None:
        """Figures of the anchors before and after their fit, and its picture, where the run has them."""
        stamp = _milliseconds(state.header["time"])
        points = [
            (f"anchors.{side}.{name}", number, stamp, 0)
            for side in ("before", "after")
            for name in ANCHOR_FIGURES
            if (number := anchor_metric(box_shapes(state), side, name)) is not None
        ]
        picture = self._folder / ANCHOR_PICTURE
        if picture.is_file():
            self._client.log_artifact(self._parent, str(picture))
        self._log_metrics(str(self._parent), points)

    def _push_trial(self, trial: TrialState) -> None:
        child = self._children.get(trial.id)
        if child is not None and child.closed:
            return
        if child is None:
            child = self._create_child(trial)
        points = [
            (name, value, _milliseconds(trial.reported_at or trial.asked_at), epoch)
            for epoch, metrics in trial.reports.items()
            if epoch not in child.epochs
            for name, value in metrics.items()
            if value is not None
        ]
        self._log_metrics(child.run_id, points)
        child.epochs |= trial.reports.keys()
        if trial.status != "running":
            self._close_trial(child, trial)

    def _create_child(self, trial: TrialState) -> _Child:
        tags = {
            RUN_TAG: self._run_key,
            TRIAL_TAG: str(trial.id),
            "mlflow.parentRunId": str(self._parent),
            "beagle.origin": str(trial.origin.get("kind", "")),
            "beagle.parents": " ".join(map(str, trial.origin.get("parents", []))),
        }
        name = f"trial-{trial.id:04d}"
        started = _milliseconds(trial.asked_at)
        run = self._client.create_run(self._experiment, start_time=started, run_name=name, tags=tags)
        self._log_params(run.info.run_id, _flat(trial.config))
        child = _Child(str(run.info.run_id))
        self._children[trial.id] = child
        return child

    def _close_trial(self, child: _Child, trial: TrialState) -> None:
        ended = _milliseconds(trial.told_at or time.time())
        summary = {f"best_{name}": value for name, value in trial.metrics.items() if value is not None}
        if trial.fitness is not None:
            summary["best_fitness"] = trial.fitness
        self._log_metrics(child.run_id, [(name, value, ended, 0) for name, value in summary.items()])
        if trial.reason:
            self._client.set_tag(child.run_id, "beagle.reason", trial.reason)
        folder = trial_folder(self._folder, trial.id)
        names = [*trial.result.get("artifacts", ()), (folder / FAILURE_NOTE).relative_to(self._folder)]
        for path in (bring(self._folder, name) for name in names):
            if path.is_file():
                self._client.log_artifact(child.run_id, str(path))
        status = {"finished": "FINISHED", "stopped": "KILLED"}.get(trial.status, "FAILED")
        self._client.set_terminated(child.run_id, status, ended)
        child.closed = True

    def _push_best(self, state: RunState) -> None:
        """The best so far over the number of trials told: the parent's one curve."""
        best, points = float("-inf"), []
        told = sorted(
            (trial for trial in state.searched if trial.told_at is not None),
            key=lambda trial: trial.told_at or 0.0,
        )
        for step, trial in enumerate(told):
            best = max(best, trial.fitness if trial.fitness is not None else best)
            if step > self._best_logged and best > float("-inf"):
                points.append(("best_fitness", best, _milliseconds(trial.told_at or 0.0), step))
        self._log_metrics(str(self._parent), points)
        self._best_logged = len(told) - 1

    def _finish(self, state: RunState) -> None:
        for artifact in ("report.html", "journal.jsonl"):
            if (self._folder / artifact).is_file():
                self._client.log_artifact(self._parent, str(self._folder / artifact))
        best, measured = state.best(), state.measured()
        if best is not None and measured is not None:
            self._client.set_tag(self._parent, "beagle.best_trial", str(best.id))
            self._client.set_tag(self._parent, "beagle.fitness", str(measured.standing.mean))
            self._client.set_tag(self._parent, "beagle.measured", belief_words(measured))
        if not state.running:
            self._client.set_terminated(self._parent, "FINISHED", _milliseconds(state.updated_at))

    def _log_metrics(self, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, stamp, step) for name, value, stamp, step in points]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])
        self.sent += len(metrics)

    def _log_params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        for start in range(0, len(entries), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=entries[start : start + PARAMS_PER_CALL])


def sync(folder: Path, store: Store) -> int:
    """Bring MLflow level with a run's journal, whether or not the run is still going.

    Args:
        folder: The run folder.
        store: Where to send.

    Returns:
        How many metric values were sent.

    Raises:
        TrackingError: MLflow did not answer or refused.
    """
    mirror = Mirror(folder, store)
    mirror.push(fold(read_journal(folder / "journal.jsonl")), final=True)
    return mirror.sent


def run_key(state: RunState) -> str:
    """What a run is known by in MLflow, the same at every resume and in a copied folder."""
    return f"{state.name}-{state.header['time']:.6f}"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
