"""Anchors over the trials in the report, and the brushes on all genes in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolve.report import build_page
from evolve.report_view import build_view
from evolve.space import Gene, Space

SPACE = Space([Gene("anchors", 2, 5, start=3, integer=True), Gene("anchor_t", 2, 8, start=4.0)])
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
Event = dict[str, Any]


def events(*sets: tuple[list[Any], float]) -> list[Event]:
    """A run whose trials trained with these (anchors, side ratio)."""
    rng = np.random.default_rng(0)
    shapes = np.exp(rng.normal(3.5, 0.8, (300, 2))).round(2).tolist()
    header = {
        "event": "run", "time": 0.0, "version": 1, "name": "anchored", "trials": len(sets), "seed": 0,
        "space": SPACE.to_dict(), "search": {}, "settings": {"epochs": 1}, "resources": {},
        "shapes": {"wh": shapes, "image_size": 320},
    }  # fmt: skip
    found: list[Event] = [header]
    for number, (anchors, ratio) in enumerate(sets):
        config = {"anchors": len(anchors[0]), "anchor_t": ratio}
        origin = {"kind": "start" if number == 0 else "mutation", "parents": []}
        found.append({"event": "ask", "time": 1.0, "trial": number, "config": config, "origin": origin})
        told = {"status": "finished", "fitness": 0.1 * number, "result": {"anchors": anchors}}
        found.append({"event": "tell", "time": 2.0 + number, "trial": number, **told})
    return found


SMALL = [[[10.0, 12.0]], [[20.0, 25.0]], [[40.0, 50.0]]]
WIDE = [[[10.0, 12.0], [14.0, 12.0]], [[20.0, 25.0], [30.0, 28.0]], [[60.0, 70.0], [150.0, 120.0]]]


def test_trials_with_the_same_anchors_take_one_sentence() -> None:
    page = build_page(build_view(events((SMALL, 4.0), (SMALL, 4.0))))
    assert "All 2 trials trained with the same anchors" in page
    assert "Recall of each trial" not in page


def test_recall_is_counted_with_each_trials_own_anchors_and_ratio() -> None:
    journal = events((SMALL, 4.0), (WIDE, 4.0), (SMALL, 2.0))
    page = build_page(build_view(journal))
    wh = np.array(journal[0]["shapes"]["wh"])
    for number, (levels, ratio) in enumerate([(SMALL, 4.0), (WIDE, 4.0), (SMALL, 2.0)]):
        sides = np.array([anchor for level in levels for anchor in level])
        reached = [
            any(max(w / a, a / w, h / b, b / h) < ratio for a, b in sides.tolist()) for w, h in wh.tolist()
        ]
        assert (
            f"trial {number}: {len(sides)} anchors, side ratio up to {ratio:g}: {np.mean(reached):.2%}"
            in page
        )
    assert "2 different sets of anchors" in page
    assert "trial 1, level 3: 2 anchors" in page


def test_a_run_that_says_nothing_of_anchors_has_no_such_section() -> None:
    journal = events((SMALL, 4.0), (WIDE, 4.0))
    journal[0].pop("shapes")
    assert "Anchors over the trials" not in build_page(build_view(journal))
    assert "Anchors over the trials" not in build_page(build_view(events()))


def test_the_brushes_are_hidden_from_who_runs_no_scripts() -> None:
    page = build_page(build_view(events((SMALL, 4.0), (WIDE, 4.0))))
    assert '<div class="brushes" hidden="">' in page


@pytest.fixture
def browser_page(tmp_path: Path) -> Iterator[Any]:
    """A page of a real browser that shows the report, and the console's lines."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    sets = [(SMALL, 2.0 + 0.5 * number) if number % 2 else (WIDE, 4.0) for number in range(10)]
    path.write_text(build_page(build_view(events(*sets))), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(15_000)
        lines: list[str] = []
        page.on("console", lambda message: lines.append(message.text))
        page.on("pageerror", lambda error: lines.append(str(error)))
        page.goto(path.as_uri())
        yield page
        browser.close()
        assert lines == []


def test_trials_are_picked_out_by_keyboard_and_by_mouse(browser_page: Any) -> None:
    page = browser_page
    page.get_by_label("Only trials with").select_option("fitness")
    page.get_by_label("low end, % of its range").focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    assert page.locator(".brushes output").inner_text() == "5 of 10 trials, by fitness"
    assert page.locator(".parallel .lines path.out").count() == 5
    box = page.locator(".parallel .plot > svg").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + 0.5 * box["height"])
    page.mouse.up()
    assert page.locator(".brushes output").inner_text().endswith("by fitness, anchors")
    assert page.locator(".brush").count() == 2
    page.get_by_role("button", name="All trials").click()
    assert page.locator(".parallel .lines path.out").count() == 0
