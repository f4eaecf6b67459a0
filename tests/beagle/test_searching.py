"""Which search a run uses, and how earlier results come into it."""

from pathlib import Path

import pytest

from beagle.folders import CommandError
from beagle.genes import build_space
from beagle.searching import search_header
from evolve import EvolveError, Gene, SearchSettings, Space, build_search
from trainer import Hyperparameters

SPACE = Space([Gene("lr0", 1e-4, 0.1, start=0.01, log=True), Gene("mixup", 0, 1, start=0)])
TABLE = "metrics/mAP_0.5,metrics/mAP_0.5:0.95,lr0,mixup\n.5,.3,.02,.1\n.6,.4,.03,.2\n"


def silent(line: str) -> None:
    """Nobody listens."""


def test_the_genetic_search_is_the_default_and_says_all_its_settings() -> None:
    assert search_header("genetic", None, SPACE, None, silent) == SearchSettings().to_dict()


def test_a_sampler_is_named_and_an_unknown_one_refused() -> None:
    assert search_header("tpe", None, SPACE, None, silent) == {"sampler": "tpe"}
    with pytest.raises(EvolveError, match="sampler 'gpp' is unknown; did you mean 'gp'"):
        search_header("gpp", None, SPACE, None, silent)


def test_earlier_results_are_tried_right_after_the_start(tmp_path: Path) -> None:
    table, lines = tmp_path / "evolve.csv", []
    table.write_text(TABLE)
    header = search_header("genetic", str(table), SPACE, None, lines.append)
    assert "2 earlier results" in lines[0]
    search = build_search(SPACE, 0, header)
    trials = [search.ask() for _ in range(4)]
    assert trials[0].config == SPACE.start
    assert [trial.config["lr0"] for trial in trials[1:3]] == [0.03, 0.02]
    assert [trial.origin["kind"] for trial in trials[:3]] == ["start", "earlier", "earlier"]
    assert type(search).from_state(search.state()).ask() == search.ask()


def test_earlier_results_are_for_the_genetic_search(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--warm-start is for --search genetic, but the search is tpe"):
        search_header("tpe", str(tmp_path), SPACE, None, silent)


@pytest.mark.filterwarnings("default")  # MLflow's own deprecations are not ours
def test_a_source_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(CommandError, match="no such file, run or MLflow experiment"):
        search_header("genetic", "nowhere", SPACE, None, silent)


@pytest.mark.filterwarnings("default")  # MLflow's own deprecations are not ours
def test_runs_of_an_mlflow_experiment_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(uri)
    experiment = client.create_experiment("old", (tmp_path / "artifacts").as_uri())
    for rate, fitness in ((0.02, 0.3), (0.05, 0.4)):
        run = client.create_run(experiment)
        client.log_param(run.info.run_id, "lr0", rate)
        client.log_metric(run.info.run_id, "fitness", fitness)
    header = search_header("genetic", "old", SPACE, None, silent)
    assert header["earlier"]["results"][0] == [{"lr0": 0.05, "mixup": 0.0}, 0.4]


def test_choices_and_conditions_are_read_from_a_file_of_the_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "mosaic: {choices: [0.0, 0.5, 1.0]}\n"
        "mixup: {low: 0, high: 0.5, when: {mosaic: [0.5, 1.0]}}\n"
        "lr0: [0.001, 0.1]\n"
    )
    space = build_space((), path, Hyperparameters())
    assert space["mosaic"].choices == (0.0, 0.5, 1.0)
    assert space.start["mosaic"] == 1.0
    assert space.decode([0.1, 0.8, 0.5])["mixup"] == 0.0
    assert space.decode([0.9, 0.8, 0.5])["mixup"] == 0.4
    assert Space.from_dict(space.to_dict()) == space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mosaic: {choices: [0.0]}", "choices must be two or more"),
        ("mosaic: {choices: [0.0, 7.0]}", r"bounds must lie in \[0, 1\]"),
        ("mosaic: {choices: [a, b]}", "choices must be numbers"),
        ("mixup: {low: 0, high: 1, when: {mosaic: 1.0}}", "when must name a gene above it, but got 'mosaic'"),
        ("mixup: {low: 0, high: 1, when: 3}", "when must be one gene and its value or values"),
    ],
)
def test_choices_and_conditions_that_cannot_be_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match=message):
        build_space((), path, Hyperparameters())
