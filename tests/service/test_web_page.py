"""The web page in a real browser, over a real service and real journals."""

import csv
import json
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.client import ServiceClient
from cluster.service_models import Format, Place
from evolve.confirm import Plan, confirm_event, next_confirmation
from evolve.journal import Journal, fold, read_journal
from model.spec import zoo_names

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
WEB = Path(__file__).parents[2] / "cluster" / "web"
TOKEN = "not-a-secret-of-anyone"
MARKUP = "<img src=x onerror=document.title='owned'>"
Serve = Callable[..., Any]
Record = Callable[..., Path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of this file."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Any]]:
    """``tab(url, width=1280)``: a page; at the end its console must have said nothing but what was allowed."""
    lines: list[str] = []
    allowed: list[str] = []
    contexts = []

    def show(url: str, width: int = 1280, allow: str | None = None, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        allowed.extend([allow] if allow else [])
        page.on("console", lambda message: lines.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: lines.append(str(error)))
        page.goto(url)
        page.wait_for_selector("h1")
        return page

    yield show
    for context in contexts:
        context.close()
    assert [line for line in lines if not any(re.search(each, line) for each in allowed)] == []


def is_within_its_width(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_the_list_shows_states_and_progress_and_leads_to_an_evolution_by_keyboard(
    serve: Serve, record: Record, tab: Callable[..., Any]
) -> None:
    record("night", planned=9, time=200.0)
    (record("broken") / "journal.jsonl").write_text("no json\n")
    page = tab(serve().url)
    assert page.locator(".card", has_text="night").inner_text().count("5 of 9 trials") == 1
    assert "journal.jsonl:1" in page.locator(".card", has_text="broken").inner_text()
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "night":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:focus")
    assert page.locator("h1").inner_text() == "night"
    assert page.title() == "night · Beagle"
    page.go_back()
    page.locator("h1", has_text="Evolutions").wait_for()


def test_one_evolution_has_charts_that_say_what_they_show_and_its_winner_failures_and_anchors(
    serve: Serve, record: Record, tab: Callable[..., Any]
) -> None:
    record("night")
    page = tab(f"{serve().url}/#/evolution/night")
    page.locator("section", has_text="Learning curves").locator("svg[role=img]").wait_for()
    charts = page.locator("svg[role=img]")
    assert charts.count() == 4  # fitness, curves, two genes
    for place in range(4):
        assert charts.nth(place).locator("title").text_content()
        assert charts.nth(place).locator("desc").text_content()
        assert charts.nth(place).locator("text.label").count() == 2
    assert "4 trials finished, 1 failed" in page.locator("figcaption").first.inner_text()
    assert "+40.0 %" in page.locator("section", has_text="Winner against start").inner_text()
    assert "1 × the loss is no number" in page.locator("section", has_text="Failures").inner_text()
    assert "99.00 %" in page.locator("section", has_text="best possible recall").inner_text()
    page.locator("select[aria-label=Metric]").select_option("map50")
    assert "map50 after each epoch" in page.locator("section", has_text="Learning curves").inner_text()


def test_trainings_that_confirm_are_marked_apart_and_the_winner_has_their_fitness(
    serve: Serve, record: Record, tab: Callable[..., Any]
) -> None:
    folder = record("night")
    with Journal(folder / "journal.jsonl") as journal:
        state = fold(read_journal(journal.path))
        state.apply(journal.append(confirm_event(state, Plan(1, epochs=6, seeds=2))))
        while (ask := next_confirmation(state)) is not None:
            state.apply(journal.append(ask))
            told = {
                "trial": ask["trial"],
                "status": "finished",
                "fitness": 0.05 if ask["origin"]["confirms"] == 0 else 0.24,
            }
            state.apply(journal.append({"event": "tell", **told, "epochs": 6}))
    page = tab(f"{serve().url}/#/evolution/night")
    winner = page.locator("section", has_text="Winner against start")
    winner.get_by_text("Confirmed: fitness 0.2400").wait_for()
    chart = page.locator("section", has_text="Fitness over trials").first
    assert "4 trials finished, 4 confirmed the best, 1 failed" in chart.inner_text()
    assert "9 of 9 trials" in page.locator(".progress").inner_text()
    assert chart.locator("path.points.plus").count() == 2  # in the chart and in its legend


def test_the_table_of_trials_is_sorted_and_filtered_and_turns_thousands_of_rows_by_pages(
    serve: Serve, tmp_path: Path, header: Callable[..., None], tab: Callable[..., Any]
) -> None:
    lines = [
        json.dumps(event)
        for number in range(3000)
        for event in (
            {
                "event": "ask",
                "time": 1.0,
                "trial": number,
                "config": {"lr0": 0.01, "mosaic": 0.5},
                "origin": {},
            },
            {
                "event": "tell",
                "time": 2.0,
                "trial": number,
                "status": "finished",
                "fitness": number % 977 / 977,
            },
        )
    ]
    path = tmp_path / "runs" / "long" / "journal.jsonl"
    with Journal(path) as journal:
        header(journal, "long", 3000)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    page = tab(f"{serve().url}/#/evolution/long")
    table = page.get_by_role("region", name="Table of trials")
    table.get_by_role("button", name="fitness").click()
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("fitness")
    best = [row.split()[0] for row in table.locator("tbody tr").all_inner_texts()[:3]]
    assert all(int(number) % 977 == 976 for number in best)
    assert table.locator("tbody tr").count() == 50
    page.get_by_role("button", name="Further rows").click()
    assert page.get_by_text("51 to 100 of 3000 trials").is_visible()
    page.get_by_label("Find trials by number").fill("1234")
    assert table.locator("tbody tr").count() == 1
    table.locator("input[type=checkbox]").check()
    page.get_by_role("button", name="Take away the curve of trial 1234").wait_for()


def test_an_evolution_that_goes_on_is_seen_to_go_on_and_stops_when_it_is_told_to(
    serve: Serve, record: Record, trials: Callable[..., None], tab: Callable[..., Any]
) -> None:
    folder = record("night", planned=9)
    live = serve()
    done = threading.Event()

    def drive() -> None:
        with Journal(folder / "journal.jsonl") as journal:
            for number in range(5, 9):
                trials(journal, 1, first=number)
                if done.wait(0.2):
                    return
            done.wait(60)

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        page = tab(f"{live.url}/#/evolution/night")
        page.get_by_text("Live: news comes as it happens.").wait_for()
        page.get_by_text("9 of 9 trials").wait_for(timeout=30_000)
        page.locator("section", has_text="Trials").locator("th[scope=row]", has_text="8").first.wait_for()
        page.get_by_role("button", name="Stop").click()
        assert page.locator("dialog").get_by_role("button", name="Go on").is_visible()
        page.keyboard.press("Escape")
        assert "/stop" not in live.audit()
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Stop it").click()
        page.get_by_text("Asked to stop").wait_for()
        assert '"path":"/evolutions/night/stop","status":202' in live.audit()
    finally:
        done.set()
        driver.join(30)


def test_markup_in_names_reasons_and_files_stays_text(
    serve: Serve, record: Record, tab: Callable[..., Any], tmp_path: Path
) -> None:
    folder = record(MARKUP, settings={"data": MARKUP, "model": MARKUP, "epochs": 3})
    text = (folder / "journal.jsonl").read_text().replace("the loss is no number", MARKUP)
    (folder / "journal.jsonl").write_text(text)
    page = tab(serve().url, allow="422")
    assert page.locator(".card h2").inner_text() == MARKUP
    page.locator(".card h2 a").click()
    page.get_by_text(f"1 × {MARKUP}").wait_for()
    assert page.locator("h1").inner_text() == MARKUP
    page.goto(f"{page.url.split('#')[0]}#/anchors")
    bad = tmp_path / f"{MARKUP[:9]}.csv"
    bad.write_text("<b>w</b>,h\n<i>,2\n")
    page.set_input_files("input[type=file]", bad)
    page.get_by_role("button", name="Fit anchors").click()
    page.locator("[role=alert]").wait_for(timeout=40_000)
    assert page.locator("main img, main b > b, main i").count() == 0
    assert "owned" not in page.title()


def test_a_token_is_asked_for_once_kept_for_the_tab_and_opens_report_and_export(
    exported_run: Path, serve: Serve, tab: Callable[..., Any], tmp_path: Path
) -> None:
    live = serve(exported_run.parent, token=TOKEN)
    page = tab(live.url + "/#/evolution/trained", allow="401")
    page.get_by_label("Token", exact=True).fill("a-wrong-token-altogether")
    page.keyboard.press("Enter")
    page.get_by_text("The token is wrong.").wait_for()
    page.get_by_label("Token", exact=True).fill(TOKEN)
    page.get_by_role("button", name="Continue").click()
    page.locator("h1", has_text="trained").wait_for()
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Open report").click()
    report = opened.value
    report.locator("h1").first.wait_for()
    # Its own style is let through, as it would be under no other policy.
    assert report.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "1180px"
    page.get_by_label("Format of the export").select_option("yolov5")
    with page.expect_download(timeout=30_000) as got:
        page.get_by_role("button", name="Download export").click()
    got.value.save_as(tmp_path / "export.zip")
    assert got.value.suggested_filename == "trained-yolov5.zip"
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        assert any(name.endswith("hyp.yaml") for name in archive.namelist())


def test_two_evolutions_stand_side_by_side(serve: Serve, record: Record, tab: Callable[..., Any]) -> None:
    record("first", trials=4)
    record("second", trials=6)
    page = tab(f"{serve().url}/#/compare")
    page.get_by_label("First").select_option("first")
    page.get_by_label("Second").select_option("second")
    page.locator("figcaption", has_text="second leads by 0.02.").wait_for()
    assert page.locator("figure path.line").count() == 2 * 2  # each in the chart and in its legend
    assert "mosaic" in page.get_by_role("region", name="Genes that differ").last.inner_text()
    assert page.url.endswith("#/compare?a=first&b=second")


def test_anchors_are_fitted_to_a_dropped_file_and_downloaded(
    serve: Serve, tab: Callable[..., Any], tmp_path: Path
) -> None:
    page = tab(f"{serve().url}/#/anchors")
    rows = "".join(f"{10 + number % 60},{20 + number % 45}\n" for number in range(400))
    page.evaluate(
        """text => {
            const carried = new DataTransfer();
            carried.items.add(new File([text], "boxes.csv"));
            const dropped = new DragEvent("drop", {dataTransfer: carried, cancelable: true});
            document.querySelector(".drop").dispatchEvent(dropped);
        }""",
        f"w,h\n{rows}",
    )
    assert "boxes.csv" in page.locator(".drop").inner_text()
    page.get_by_role("button", name="Fit anchors").click()
    page.get_by_text("400 boxes at 640 px").wait_for(timeout=30_000)
    picture = page.locator("svg[role=img]")
    assert picture.locator("rect.cell").count() > 20
    assert "fitted ones reach" in str(picture.locator("desc").text_content())
    assert re.search(r"#/anchors/[0-9a-f]{32}$", page.url)
    with page.expect_download() as got:
        page.get_by_role("button", name="Download anchors.yaml").click()
    got.value.save_as(tmp_path / "anchors.yaml")
    levels = re.findall(r"- \[(.+)\]  # stride", (tmp_path / "anchors.yaml").read_text())
    assert [len(next(csv.reader([level]))) for level in levels] == [6, 6, 6]
    page.reload()
    page.get_by_text("400 boxes at 640 px").wait_for()


def test_what_the_service_refuses_is_said_where_it_was_asked(serve: Serve, tab: Callable[..., Any]) -> None:
    page = tab(f"{serve().url}/#/new", allow="4(04|22)")
    page.get_by_label("Name", exact=True).fill("night")
    page.get_by_label("Data").fill("/etc")
    page.get_by_role("button", name="Start the evolution").click()
    page.get_by_text("the path must be absolute and under").wait_for()
    page.get_by_text("Stopping and confirming").click()
    rungs = page.get_by_label("Judge trials after epochs")
    rungs.fill("3, 10")
    page.get_by_text("Stopping and confirming").click()
    assert not rungs.is_visible()
    page.get_by_role("button", name="Start the evolution").click()
    page.get_by_text("rungs must rise and be fewer than the 10 epochs, but got [3, 10]").wait_for()
    assert rungs.evaluate("each => each === document.activeElement")
    page.goto(page.url.split("#")[0] + "#/evolution/none")
    page.get_by_text("there is no evolution 'none'").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_is_wider_than_a_phone(
    serve: Serve, record: Record, tab: Callable[..., Any], scheme: str
) -> None:
    record("night-" + "x" * 60)
    record("second")
    live = serve()
    page = tab(live.url, width=390, color_scheme=scheme, reduced_motion="reduce")
    for view in ("", f"evolution/night-{'x' * 60}", f"compare?a=second&b=night-{'x' * 60}", "anchors", "new"):
        page.goto(f"{live.url}/#/{view}")
        page.wait_for_function("!document.querySelector('main').innerText.startsWith('Loading')")
        page.locator("h1").wait_for()
        time.sleep(0.2)
        assert is_within_its_width(page), view


def test_what_the_page_offers_is_what_the_service_takes() -> None:
    script = (WEB / "evolution.js").read_text()
    assert all(f'["{each}", ' in script for each in Format.__args__)
    assert all(f' {each}: "' in (WEB / "start.js").read_text() for each in Place.__args__)


def test_the_forms_offer_what_this_service_may_use_and_no_more(serve: Serve, tab: Callable[..., Any]) -> None:
    live = serve(places=("slurm", "local"))
    page = tab(f"{live.url}/#/new")
    assert page.get_by_label("Place").locator("option").all_inner_texts() == ["Slurm", "this machine"]
    page.get_by_text("More settings").click()
    searches = page.get_by_label("Search").locator("option").all_inner_texts()
    assert searches[0] == "genetic"
    assert {"tpe", "cmaes", "gp"} <= set(searches)
    offered = page.locator("datalist option").evaluate_all("all => all.map((each) => each.value)")
    assert offered == list(zoo_names())
    page.goto(f"{live.url}/#/anchors")
    page.get_by_role("button", name="Fit anchors").wait_for()
    assert page.get_by_label("Model").locator("option").all_inner_texts() == offered
    with ServiceClient(live.url) as client:
        assert client.choices().places == ["slurm", "local"]


def test_the_first_load_is_light_and_no_file_parses_markup_or_asks_elsewhere() -> None:
    first = ("index.html", "style.css", "app.js", "api.js", "dom.js", "list.js", "icon.svg")
    assert sum((WEB / name).stat().st_size for name in first) < 60_000
    for path in WEB.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
            path.name
        )
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path.name
