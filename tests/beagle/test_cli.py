"""Exit codes, and what is said with them."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import dataset.check
from beagle import __version__, cli
from dataset import DataError
from evolve.space import SpaceError

Beagle = Callable[..., Any]


def test_help_and_version_are_no_errors(beagle: Beagle) -> None:
    for words in ([], ["--help"], ["train", "--help"]):
        said = beagle(*words)
        assert said.code == 0
        assert "Usage" in said.out
        assert said.err == ""
    assert beagle("--version").out == f"beagle {__version__}\n"


def test_every_sub_command_has_help(beagle: Beagle) -> None:
    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        said = beagle(name, "--help")
        assert said.code == 0
        assert command.help, name
        assert command.help.splitlines()[0].split()[0] in said.out


def test_the_room_of_an_error_tells_that_the_user_can_mend_it() -> None:
    assert cli.user_line(DataError("no such\n file")) == "no such file"
    assert cli.user_line(SpaceError("low < high must hold")) == "low < high must hold"
    assert cli.user_line(ValueError("anything")) is None
    assert cli.user_line(KeyError("anything")) is None
    assert cli.user_line(OSError(errno.EIO, "Input/output error")) is None


def test_a_disk_s_refusal_is_the_user_s_to_mend() -> None:
    line = cli.user_line(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
    assert line == "no space left on device: runs/a (free some space, or choose another folder)"


def test_a_fault_of_ours_leaves_its_traceback_in_a_file(
    beagle: Beagle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(source: str) -> None:
        raise ZeroDivisionError(f"on {source}")

    monkeypatch.setattr(dataset.check, "check", fail)  # no real way to make it fail is known, we hope
    said = beagle("data", "check", "digits")
    assert said.code == 3
    assert said.errors == ["error: this is a fault of Beagle's: ZeroDivisionError: on digits"]
    (report,) = tmp_path.glob("beagle-crash-*.txt")
    assert str(report) in said.err
    assert "Traceback" not in said.err
    assert "ZeroDivisionError: on digits" in report.read_text()
    assert "Traceback" in report.read_text()


def test_a_fault_of_ours_is_shown_where_no_file_can_be_written(
    beagle: Beagle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(source: str) -> None:
        raise ZeroDivisionError(source)

    monkeypatch.setattr(dataset.check, "check", fail)
    monkeypatch.setenv("BEAGLE_CRASHES", str(tmp_path / "absent"))
    said = beagle("data", "check", "digits")
    assert said.code == 3
    assert "Traceback" in said.err


def test_an_interruption_has_its_own_exit_code(beagle: Beagle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset.check, "check", interrupt)
    said = beagle("data", "check", "digits")
    assert (said.code, said.out, said.err.strip()) == (130, "", "interrupted")


def test_a_sound_data_set_can_be_trained_on(beagle: Beagle, tiny: Path) -> None:
    said = beagle("data", "check", tiny)
    assert said.code == 0
    assert "can be trained on" in said.err
    counts = json.loads(beagle("data", "check", tiny, "--json").out)["counts"]
    assert (counts["train"]["images"], counts["val"]["boxes"]) == (12, 12)


def test_fitted_anchors_are_written_as_a_model_that_loads(beagle: Beagle, tiny: Path) -> None:
    words = ("anchors", "fit", tiny, "--model", "yolov5n", "--image-size", "64", "--out", "a.yaml")
    said = beagle(*words, "--plot", "a.png", "--json")
    assert said.code == 0, said
    figures = json.loads(said.out)
    assert figures["after"]["fitness"] > figures["before"]["fitness"]
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    shown = json.loads(beagle("model", "show", "a.yaml", "--json").out)
    assert shown["anchors"] == figures["anchors"]
    assert shown["classes"] == 2
    assert beagle(*words).code == 1  # it exists
    assert beagle(*words, "--overwrite").code == 0


def test_a_picture_shows_the_boxes_at_the_rounded_size_that_anchors_were_fitted_at(
    beagle: Beagle, tiny: Path
) -> None:
    for size, name in ((70, "asked"), (96, "rounded")):
        words = ("--image-size", str(size), "--out", f"{name}.yaml", "--plot", f"{name}.png")
        assert beagle("anchors", "fit", tiny, "--model", "yolov5n", *words).code == 0
    assert Path("asked.yaml").read_text() == Path("rounded.yaml").read_text()
    assert Path("asked.png").read_bytes() == Path("rounded.png").read_bytes()


def test_anchors_that_run_against_the_strides_are_mended_and_it_is_said(beagle: Beagle, tiny: Path) -> None:
    words = ("anchors", "fit", tiny, "--model", "yolov5n", "--image-size", "64", "--out", "a.yaml")
    assert beagle(*words).code == 0
    model = yaml.safe_load(Path("a.yaml").read_text())
    model["anchors"].reverse()
    Path("reversed.yaml").write_text(yaml.safe_dump(model))
    said = beagle("anchors", "check", tiny, "--model", "reversed.yaml", "--image-size", "64")
    assert said.code == 0
    assert "stride" in said.err


def test_a_run_s_status_is_told_in_words_and_in_json(beagle: Beagle, finished_run: Path) -> None:
    said = beagle("status", finished_run)
    assert said.code == 0
    assert "1 finished, 0 failed, 1 running, of 2" in said.out
    found = json.loads(beagle("status", finished_run, "--json").out)
    assert (found["run"], found["finished"], found["running"], found["budget"]) == ("small", 1, 1, 2)
    assert [trial["status"] for trial in found["trials"]] == ["finished", "running"]
    assert found["best"]["trial"] == 0
    assert set(found["best"]["config"]) == {"lr0", "mosaic"}


def test_a_report_is_one_page_that_needs_nothing_else(beagle: Beagle, finished_run: Path) -> None:
    said = beagle("report", finished_run, "--out", "page.html")
    assert (said.code, said.out) == (0, "page.html\n")
    page = Path("page.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_an_export_is_listed(beagle: Beagle, finished_run: Path) -> None:
    found = json.loads(beagle("export", finished_run, "--to", "production", "--json").out)
    assert found["files"] == sorted(path.name for path in Path("production").iterdir())
    assert {"hyp.yaml", "model.yaml", "train.sh", "provenance.json", "best.pt"} <= set(found["files"])


def test_a_model_is_shown_in_figures(beagle: Beagle) -> None:
    shown = json.loads(beagle("model", "show", "yolov5n?attention=se", "--classes", "3", "--json").out)
    assert shown["parameters"] == sum(row["parameters"] for row in shown["rows"])
    assert shown["gflops"] == pytest.approx(sum(row["GFLOPs"] for row in shown["rows"]), rel=1e-3)
    assert shown["image_size"] == [640, 640]
    assert [level["receptive_field"] for level in shown["levels"]] == [None] * 3
    assert shown["options"]["attention"] == "se"
    said = beagle("model", "show", "yolov3-tiny", "--image-size", "96").out
    assert "GFLOPs at 96 × 96 px" in " ".join(said.split())
    assert "whole image" not in said


def test_built_in_models_are_listed(beagle: Beagle) -> None:
    models = json.loads(beagle("model", "list", "--json").out)
    assert len(models) == 28
    assert {"yolov5n", "yolov5x6", "yolov4-p7", "yolov3-tiny"} <= {model["model"] for model in models}
    assert "yolov5n6" in beagle("model", "list").out
