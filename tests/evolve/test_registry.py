"""An export in MLflow's registry, with MLflow itself."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from evolve.journal import Journal
from evolve.mlflow_store import TrackingError, default_store
from evolve.registry import register_export
from evolve.space import Gene, Space


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one trial, and beside it an exported folder."""
    folder = tmp_path / "runs" / "night"
    space = Space([Gene("lr0", 0.001, 0.1)])
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {"event": "run", "version": 1, "name": "night", "trials": 1, "seed": 0, "space": space.to_dict()}
            | {"search": {}, "settings": {"epochs": 1}, "resources": {}, "provenance": {}}
        )
        journal.append({"event": "ask", "trial": 0, "config": {"lr0": 0.01}, "origin": {"kind": "start"}})
        told = {"status": "finished", "fitness": 0.25, "reason": None, "metrics": {"fitness": 0.25}}
        journal.append({"event": "tell", "trial": 0, "epochs": 1, "seconds": 1.0, "result": {}, **told})
    (tmp_path / "production").mkdir()
    (tmp_path / "production" / "hyp.yaml").write_text("lr0: 0.01\n")
    return folder


# MLflow's own use of SQLAlchemy, which SQLAlchemy is about to drop.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_each_registration_is_a_version_that_names_its_run_and_holds_the_folder(
    run: Path, tmp_path: Path
) -> None:
    store = default_store(run.parent, {})
    versions = [register_export(run, tmp_path / "production", "cells's best", store) for _ in range(2)]
    assert versions == [1, 2]
    client = MlflowClient(store.uri)
    version = client.get_model_version("cells's best", "2")
    parent = client.get_run(version.run_id)
    assert parent.info.run_name == "night"
    words = version.tags.pop("beagle.measured")
    assert words.startswith("Not confirmed: fitness 0.2500 after one training of")
    assert version.tags == {"beagle.run": "night", "beagle.trial": "0", "beagle.fitness": "0.25"}
    assert [item.path for item in client.list_artifacts(version.run_id, "export")] == ["export/hyp.yaml"]
    assert version.source.endswith("/export")


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_a_name_that_the_registry_can_not_hold_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(TrackingError, match="name must not be empty nor hold"):
        register_export(run, tmp_path / "production", name, default_store(run.parent, {}))
