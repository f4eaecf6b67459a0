"""`beagle evolve --trainer`: what is refused before anything is written, and what stands in a new run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from beagle.command_run import CommandOptions, command_files, start_command_run
from beagle.folders import CommandError
from evolve.command_file import load_trainer
from evolve.command_spec import CommandSpec
from evolve.command_values import at_length
from evolve.export import HERE
from evolve.journal import fold, read_journal
from evolve.ladder import Ladder
from evolve.ray_driver import Resources
from evolve.space import EvolveError


@pytest.fixture
def trainer(workplace: Path) -> Path:
    path = workplace.parent / "command.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "command": ["{python}", "-c", "pass", "{hyp}", "{data}"],
                "genes": {"lr": [0.0, 1.0], "warm": {"low": 0, "high": 8, "integer": True, "start": 2}},
                "hyperparameters": {"names": {"lr": "rate"}},
                "results": {"format": "csv", "file": "{out}/r.csv", "fitness": "map"},
                "production": {"epochs": 50, "per_length": ["warm"]},
                "environment": {"TOKEN": "a b"},
            }
        )
    )
    return path


def test_data_may_be_left_out_where_the_command_needs_none(
    untouched: Callable[..., str], trainer: Path
) -> None:
    assert "DATA must be given, since its command names {data}" in untouched("evolve", "--trainer", trainer)
    assert "DATA must be given" in untouched("evolve")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--trainer", "yolov"], "did you mean 'yolov5'?"),
        (["--trainer", "yolov5", "x.yaml"], "there is no train.py in"),
        (["--trainer", "gone.yaml"], "can't be read"),
        (["--trainer", "yolov5", "x", "--genes", "lr9"], "gene 'lr9' is unknown; did you mean"),
        (["--trainer", "yolov5", "x", "--anchors", "keep"], "--anchors has no meaning with --trainer"),
        (["--trainer", "yolov5", "x", "--trials", "0"], "trials >= 1 must hold"),
        (["--trainer", "yolov5", "x", "--device", "tpu"], "device must be"),
        (["--trainer", "yolov5", "x", "--hyp", "gone.yaml"], "can't be read"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_written(
    words: list[str], match: str, untouched: Callable[..., str]
) -> None:
    assert match in untouched("evolve", *words)


def test_a_bad_file_is_one_line_with_file_and_key(trainer: Path, untouched: Callable[..., str]) -> None:
    trainer.write_text(trainer.read_text().replace("format: csv", "format: xml"))
    line = untouched("evolve", "x", "--trainer", trainer)
    assert f"{trainer}: results.format: must be one of csv, json, jsonl, regex, mlflow, but got 'xml'" in line


def start(folder: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    start_command_run(folder, CommandOptions(**options), Resources(), notes.append)
    return fold(read_journal(folder / "journal.jsonl")).header, notes


def test_the_header_holds_all_that_a_worker_and_a_resume_need(trainer: Path, workplace: Path) -> None:
    header, _ = start(
        workplace / "run", trainer=str(trainer), data="x.yaml", genes=("lr",), ladder=Ladder((7,))
    )
    settings = header["settings"]
    spec = CommandSpec.from_dict(settings["trainer"])
    assert [gene["name"] for gene in header["space"]["genes"]] == ["lr"]
    assert spec.handover.values({"lr": 0.5}) == {"warm": 2, "rate": 0.5}
    assert (settings["epochs"], settings["data"], settings["cwd"]) == (7, "x.yaml", str(workplace))
    assert len(header["provenance"]["trainer_hash"]) == 64


def test_values_of_a_file_are_starts_of_genes_and_what_is_not_evolved(trainer: Path, workplace: Path) -> None:
    hyp = workplace.parent / "hyp.yaml"
    hyp.write_text("rate: 0.25\nextra: 3\n")
    header, notes = start(workplace / "run", trainer=str(trainer), data="x", hyp=hyp)
    spec = CommandSpec.from_dict(header["settings"]["trainer"])
    assert header["space"]["genes"][0]["start"] == 0.25
    assert spec.handover.fixed["extra"] == 3
    assert any("extra is no hyperparameter that mine names" in note for note in notes)
    hyp.write_text("rate: 2\n")
    with pytest.raises(EvolveError, match="start must be in"):
        start(workplace / "other", trainer=str(trainer), data="x", hyp=hyp)
    hyp.write_text("rate: fast\n")
    with pytest.raises(CommandError, match=r"rate must be a number, but got 'fast'"):
        start(workplace / "other", trainer=str(trainer), data="x", hyp=hyp)


def test_a_longer_training_keeps_the_share_of_what_is_counted_in_epochs(trainer: Path) -> None:
    spec = load_trainer(str(trainer))
    config, notes = at_length(spec, {"lr": 0.5, "warm": 3}, 10, 50)
    assert config == {"lr": 0.5, "warm": 15}
    assert notes == ["warm: 3 of 10 epochs became 15 of 50, the same share"]
    assert at_length(spec, {"lr": 0.5, "warm": 3}, 10, 10) == ({"lr": 0.5, "warm": 3}, [])


def test_production_runs_the_user_s_own_command_with_its_own_keys(trainer: Path, workplace: Path) -> None:
    folder = workplace / "run"
    start(folder, trainer=str(trainer), data="x")
    state = fold(
        [
            *read_journal(folder / "journal.jsonl"),
            {
                "event": "ask",
                "trial": 0,
                "config": {"lr": 0.5, "warm": 4},
                "origin": {"kind": "start"},
                "time": 1.0,
            },
            {"event": "tell", "trial": 0, "status": "finished", "fitness": 0.5, "time": 2.0, "result": {}},
        ]
    )
    best = state.best()
    assert best is not None
    files = command_files(state, best)
    assert files.hyp == {"rate": 0.5, "warm": 20}
    assert list(files.command) == ["python", "-c", "pass", f"{HERE}/hyp.yaml", "x"]
    assert (files.directory, dict(files.environment)) == (str(workplace), {"TOKEN": "a b"})
