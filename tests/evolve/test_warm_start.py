"""Earlier results of other searches, read into a space."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolve import Gene, Journal, Space
from evolve.warm_start import Earlier, Result, WarmStartError, likeness, load_earlier

SPACE = Space(
    [
        Gene("lr0", 1e-4, 0.1, start=0.01, log=True),
        Gene("mixup", 0, 1, start=0),
        Gene("n", 2, 9, start=3, integer=True),
    ]
)
HEAD = (
    "   metrics/precision,      metrics/recall,     metrics/mAP_0.5,metrics/mAP_0.5:0.95,"
    "        val/box_loss,        val/obj_loss,        val/cls_loss,                 lr0,               mixup"
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_yolov5_table_is_read_with_its_fitness_from_both_maps(tmp_path: Path) -> None:
    table = write(
        tmp_path / "evolve.csv", f"{HEAD}\n.1,.2,.5,.3,0,0,0,.02,.1\n.1,.2,.6,.4,0,0,0,.03,.2\n.1,.2\n"
    )
    earlier = load_earlier(table, SPACE)
    assert [round(fitness, 6) for _, fitness in earlier.results] == [0.42, 0.32]
    assert earlier.results[0][0] == {"lr0": 0.03, "mixup": 0.2, "n": 3}
    assert "2 earlier results" in earlier.note
    assert "nothing is known of its data set" in earlier.note


def test_rows_that_diverged_are_left_out(tmp_path: Path) -> None:
    table = write(tmp_path / "evolve.csv", f"{HEAD}\n.1,.2,nan,.3,0,0,0,.02,.1\n.1,.2,.6,.4,0,0,0,.03,.2\n")
    assert len(load_earlier(table, SPACE).results) == 1


@pytest.mark.parametrize("nested", [True, False])
def test_lines_of_ultralytics_are_read_with_genes_nested_or_beside(tmp_path: Path, nested: bool) -> None:
    rows: list[dict[str, Any]] = []
    for fitness, rate in ((0.2, 0.02), (0.3, 0.05)):
        genes = {"lr0": rate, "mixup": 0.4, "hsv_h": 0.1}
        rows.append({"fitness": fitness, **({"hyperparameters": genes} if nested else genes)})
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"fitness": 0.4, "hyp'
    earlier = load_earlier(write(tmp_path / "tune_results.ndjson", text), SPACE)
    assert [config["lr0"] for config, _ in earlier.results] == [0.05, 0.02]


def test_values_beyond_the_bounds_are_moved_to_them() -> None:
    earlier = load_earlier(Path("x"), SPACE, results=[Result({"lr0": 5.0, "mixup": "odd", "n": 4.4}, 0.1)])
    assert earlier.results == (({"lr0": 0.1, "mixup": 0.0, "n": 4}, 0.1),)


def test_a_run_of_ours_is_read_and_its_boxes_compared(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run", "version": 1, "name": "old", "trials": 2, "seed": 0, "space": SPACE.to_dict(),
                "settings": {"hyp": {"mixup": 0.25}}, "shapes": {"wh": [[10, 20], [30, 60]]},
            }
        )  # fmt: skip
        for number, fitness in enumerate((0.3, None)):
            config = {"lr0": 0.02 + number / 100}
            journal.append({"event": "ask", "trial": number, "config": config, "origin": {"kind": "start"}})
            status = "failed" if fitness is None else "finished"
            journal.append({"event": "tell", "trial": number, "status": status, "fitness": fitness})
    earlier = load_earlier(tmp_path, SPACE, wh_px=[[20, 40], [60, 120]])
    assert earlier.results == (({"lr0": 0.02, "mixup": 0.25, "n": 3}, 0.3),)
    assert earlier.likeness == pytest.approx(0.5, abs=1e-3)
    assert "50% like this data set's" in earlier.note


def test_results_of_other_genes_are_refused() -> None:
    with pytest.raises(WarmStartError, match="no result there names a gene of this search"):
        load_earlier(Path("x"), SPACE, results=[Result({"batch": 1}, 0.1)])


def test_files_that_hold_no_results_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(WarmStartError, match="cannot be read"):
        load_earlier(tmp_path / "none.csv", SPACE)
    with pytest.raises(WarmStartError, match=r"a.csv:2: a row must have fitness"):
        load_earlier(write(tmp_path / "a.csv", "lr0,mixup\n1,2\n"), SPACE)
    with pytest.raises(WarmStartError, match="a head and a row"):
        load_earlier(write(tmp_path / "b.csv", "lr0\n"), SPACE)
    with pytest.raises(WarmStartError, match=r"c.ndjson:1: the line is no JSON"):
        load_earlier(write(tmp_path / "c.ndjson", "{\n{}\n"), SPACE)


def test_boxes_of_one_data_set_are_wholly_alike_and_of_none_unknown() -> None:
    wh = np.random.default_rng(0).uniform(5, 50, (40, 2))
    assert likeness(wh, wh[::-1]) == 1.0
    assert likeness(wh, np.zeros((0, 2))) == 0.5
    assert likeness(wh, 2 * wh) > likeness(wh, 4 * wh)


def test_earlier_results_survive_a_journal() -> None:
    earlier = load_earlier(Path("x"), SPACE, results=[Result({"lr0": 0.02}, 0.1)])
    assert Earlier.from_dict(json.loads(json.dumps(earlier.to_dict()))) == earlier
