"""AutoAnchor: when it fits, and that it fits once."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from anchors import metrics
from trainer import autoanchor
from trainer.autoanchor import choose, fit_once

COCO = np.reshape(
    [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326], (3, 3, 2)
).astype(float)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anchors"


@pytest.fixture
def lines() -> np.ndarray:
    """Shapes of text lines, which the anchors for COCO reach badly."""
    return np.exp(np.random.default_rng(3).normal([5.0, 2.0], [0.5, 0.3], size=(300, 2)))


def test_anchors_that_reach_enough_are_kept_unless_a_fit_is_asked_for():
    wh = np.repeat(COCO.reshape(-1, 2), 3, axis=0) * [1.1, 0.9]
    assert choose(wh, COCO).fitted is None
    assert choose(wh, COCO, mode="keep", per_level=5).fitted is None
    assert choose(wh, COCO, mode="fit").fitted is not None


def test_anchors_that_reach_too_few_boxes_are_fitted_to_them(lines):
    chosen = choose(lines, COCO)
    assert chosen.before.bpr < 0.98 <= chosen.after.bpr
    assert chosen.after == metrics.evaluate(lines, chosen.anchors)


def test_the_genes_for_number_and_threshold_each_have_a_fit_of_their_own(lines, own_cache):
    four = choose(lines, COCO, per_level=4)
    strict = choose(lines, COCO, per_level=4, threshold=2.0)
    assert four.anchors.shape == (3, 4, 2)
    assert strict.fitted is not None
    assert strict.after == metrics.evaluate(lines, strict.anchors, 2.0)
    assert len(list(own_cache.glob("*.json"))) == 2


def test_a_second_fit_of_the_same_is_read_and_not_run(lines, monkeypatch):
    first = fit_once(lines, 2, 2, threshold=4.0, seed=0)
    monkeypatch.setattr(autoanchor, "fit", None)  # would fail if it were called
    told: list[float] = []
    again = fit_once(lines, 2, 2, threshold=4.0, seed=0, progress=told.append)
    np.testing.assert_array_equal(again.anchors, first.anchors)
    assert (again.after, again.before, again.boxes, again.seconds) == (
        first.after,
        first.before,
        first.boxes,
        first.seconds,
    )
    assert told == [1.0]


def test_other_boxes_seeds_and_starts_are_other_fits(lines, own_cache):
    fit_once(lines, 1, 2, threshold=4.0, seed=0)
    fit_once(lines[1:], 1, 2, threshold=4.0, seed=0)
    fit_once(lines, 1, 2, threshold=4.0, seed=1)
    fit_once(lines, 1, 2, threshold=4.0, seed=0, start=COCO[:1, :2])
    assert len(list(own_cache.glob("*.json"))) == 4


@pytest.mark.parametrize("content", ["", "{", '{"version": 0}', '{"version": 1, "before": 3}', "[]"])
def test_a_damaged_entry_is_made_again(lines, own_cache, content, caplog):
    first = fit_once(lines, 1, 2, threshold=4.0, seed=0)
    (entry,) = own_cache.glob("*.json")
    entry.write_text(content)
    np.testing.assert_array_equal(fit_once(lines, 1, 2, threshold=4.0, seed=0).anchors, first.anchors)
    assert json.loads(entry.read_text())["version"] == 1


def test_a_folder_that_cannot_be_written_costs_the_cache_and_nothing_else(
    lines, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "file"))
    assert fit_once(lines, 1, 2, threshold=4.0, seed=0).anchors.shape == (1, 2, 2)
    assert "cannot be kept" in caplog.text


def count_and_fit(counter: Path, wh: np.ndarray) -> list:
    real = autoanchor.fit

    def counted(*words, **named):
        with counter.open("a") as file:
            file.write("x")
        return real(*words, **named)

    autoanchor.fit = counted
    return fit_once(wh, 1, 3, threshold=4.0, seed=0).anchors.tolist()


def test_processes_that_start_together_fit_once(lines, tmp_path):
    counter = tmp_path / "count"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(count_and_fit, [(counter, lines)] * 4)
    assert counter.read_text() == "x"
    assert all(one == found[0] for one in found)
