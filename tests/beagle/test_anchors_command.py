"""`beagle anchors` on CSV files of shapes: what it prints, writes and refuses."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from beagle.cli import run
from dataset import DataError
from dataset.shapes_csv import load_shapes

pytestmark = pytest.mark.ray


@pytest.fixture
def shapes_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """120 boxes of two classes in images of 1280×960; one box is far from all others."""
    monkeypatch.chdir(tmp_path)
    wh = np.exp(np.random.default_rng(1).normal([4.0, 3.5], 0.4, size=(120, 2)))
    wh[7] = 2, 900
    rows = [f"{i},1280,960,{i % 2},{w:.2f},{h:.2f}" for i, (w, h) in enumerate(wh)]
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(["image_id,image_width,image_height,class_id,box_w,box_h", *rows]) + "\n")
    return path


def test_a_fit_to_a_csv_writes_model_picture_and_the_boxes_out_of_reach(
    shapes_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "yolov5n", "--per-level", "1", "--threshold", "2.5"]
    files = ["--write", "m.yaml", "--plot", "p.png", "--unmatched", "u.csv"]
    assert run(["anchors", "fit", str(shapes_csv), *words, *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert np.shape(found["anchors"]) == (3, 1, 2)
    assert [row["class"] for row in found["by_class"]] == ["0", "1"]
    assert sum(row["boxes"] for row in found["by_level"]) == 120
    with Path("u.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["unreachable"]
    assert rows[0]["place"].endswith("boxes.csv:9")  # the header is line 1
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert "anchors:" in Path("m.yaml").read_text()


def test_weights_are_one_for_each_data_set(shapes_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [str(shapes_csv), str(shapes_csv)]
    assert run(["anchors", "check", *two, "--weight", "1", "--weight", "3", "--json"]) == 0
    weighted = json.loads(capsys.readouterr().out)
    assert run(["anchors", "check", *two[:1], "--json"]) == 0
    assert weighted["after"]["fitness"] == pytest.approx(
        json.loads(capsys.readouterr().out)["after"]["fitness"]
    )
    assert run(["anchors", "check", *two, "--weight", "1"]) == 1
    assert "--weight must be said for each of 2 data sets, but got 1" in capsys.readouterr().err


def test_a_fit_for_several_image_sizes_is_another_fit(
    shapes_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitness = []
    fit = ["anchors", "fit", str(shapes_csv), "--per-level", "1", "--overwrite", "--json"]
    for words in ([], ["--multi-scale"], ["--multi-scale", "--jitter", "0.9"]):
        assert run([*fit, *words]) == 0
        fitness.append(json.loads(capsys.readouterr().out)["after"]["fitness"])
    assert fitness[0] > fitness[1] > fitness[2]


@pytest.mark.slow
def test_a_ray_cluster_that_runs_already_reads_what_this_machine_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        cv2.imwrite(f"set/images/{number}.png", np.full((60, 80, 3), number, np.uint8))
        w, h = rng.uniform(0.1, 0.9, size=2)
        Path(f"set/labels/{number}.txt").write_text(f"0 0.5 0.5 {w:.4f} {h:.4f}\n")
    fit = ["anchors", "fit", "set", "--overwrite", "--json"]
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "one"))
    assert run(fit) == 0
    here = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "two"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        assert run([*fit, "--ray", cluster.address]) == 0
    finally:
        cluster.shutdown()
    there = json.loads(capsys.readouterr().out)
    assert there["anchors"] == here["anchors"]


def test_a_sweep_marks_the_knee(shapes_csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["anchors", "sweep", str(shapes_csv), "--image-sizes", "320", "--counts", "1,2,3"]) == 0
    assert capsys.readouterr().out.count("knee") == 1
    assert run(["anchors", "sweep", str(shapes_csv), "--counts", "2,x"]) == 1
    assert "--counts must be whole numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", r"must name a column box_w \(or w, width\)"),
        ("w,h\n", "must hold boxes, but has none"),
        ("w,h\n3,x\n", "a row is not one of numbers"),
        ("w,h\n3,4\n5,0\n", r"row 2 has \[5.0, 0.0\]"),
        ("w,h\n3,nan\n", "sides must be finite"),
    ],
)
def test_a_csv_that_holds_no_shapes_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_shapes(tmp_path / "x.csv")


def test_shapes_without_image_sizes_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('name,w,h\n"a, b",30,40\nc,5,6\n')
    table = load_shapes(tmp_path / "x.csv")
    assert table.shapes(640).tolist() == [[30, 40], [5, 6]]
    assert table.classes.tolist() == [0, 0]
