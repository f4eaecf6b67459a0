"""The parts of the service, joined: what the paths ask."""

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cluster.probe import not_answering
from cluster.service_events import events
from cluster.service_files import Export, Files
from cluster.service_fits import FitQueue
from cluster.service_jobs import NeedsOf, Starter
from cluster.service_metrics import Metrics
from cluster.service_models import Choices, Ready
from cluster.service_runs import NoSuchRunError, Runs
from cluster.service_settings import ServiceSettings
from evolve.journal import JournalError
from evolve.samplers import SAMPLERS
from evolve.search import GeneticSearch
from model.spec import zoo_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Actions:
    """What the command lends the service from the floor above.

    Attributes:
        export: Writes what production trains from.
        needs_of: What a command must find where it runs.
    """

    export: Export
    needs_of: NeedsOf


class Service:
    """The parts, joined."""

    def __init__(self, settings: ServiceSettings, actions: Actions) -> None:
        """Nothing runs yet."""
        self.settings = settings
        self.runs = Runs(settings.runs)
        self.files = Files(self.runs, actions.export)
        self.starter = Starter(settings, self.runs, actions.needs_of)
        self.fits = FitQueue(settings)
        self.metrics = Metrics()
        self.streams = 0
        self.metrics.watch("beagle_fits_waiting", "Anchor fits that wait", lambda: self.fits.waiting)
        self.metrics.watch("beagle_fits_running", "Anchor fits that run", lambda: self.fits.running)
        self.metrics.watch("beagle_streams", "Open event streams", lambda: self.streams)

    def ready(self) -> Ready:
        """Whether runs can be read and written here, and what MLflow says."""
        checks = {"runs": "ok", "mlflow": "not used by the service"}
        try:
            self.settings.runs.mkdir(parents=True, exist_ok=True)
            probe = self.settings.runs / ".service"
            probe.mkdir(exist_ok=True)
            (probe / ".ready").touch()
        except OSError as error:
            checks["runs"] = f"{self.settings.runs} can't be written ({error.strerror})"
        store = os.environ.get("MLFLOW_TRACKING_URI", "")
        if store.startswith("http"):
            checks["mlflow"] = (not_answering(store, "the service's machine") or ["ok"])[0]
        return Ready(ready=checks["runs"] == "ok", checks=checks)

    def choices(self) -> Choices:
        """What requests may name here."""
        return Choices.model_validate(
            {
                "places": self.settings.places,
                "models": zoo_names(),
                "searches": [GeneticSearch.kind, *SAMPLERS],
            }
        )

    async def stream(self, run_id: str, offset: int | None) -> AsyncIterator[bytes]:
        """Events, counted."""
        self.streams += 1
        try:
            async for event in events(self.runs, run_id, offset):
                yield event
        except (NoSuchRunError, JournalError) as error:  # removed, or damaged, meanwhile
            logger.warning("the events of %s end: %s", run_id, error)
        finally:
            self.streams -= 1
