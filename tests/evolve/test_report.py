"""The page of a run, read back as a browser would."""

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.journal import JournalError
from evolve.page import SCRIPT
from evolve.report import ReportError, build_page, write_report
from evolve.report_view import build_view
from evolve.space import Gene, Space
from evolve.wording import moment

SPACE = Space([Gene("lr0", 1e-5, 0.1, start=0.01, log=True), Gene("mixup", 0, 1, start=0.0)])
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00"
VOID = {"input", "meta", "br"}
Event = dict[str, Any]


class Reader(HTMLParser):
    """Reads the page and refuses tags that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
            if "tr" in self.open:
                self.rows[-1] += data + "|"


def header(**changes: Any) -> Event:
    event = {
        "event": "run",
        "time": 1000.0,
        "version": 1,
        "name": "first-run",
        "trials": 10,
        "seed": 3,
        "space": SPACE.to_dict(),
        "search": {"elite": 5},
        "settings": {"data": "/somewhere/digits.yaml", "epochs": 2},
        "resources": {"cpus": 1.0, "gpus": 0.0, "concurrent": 2},
        "provenance": {"git_commit": "abc123", "versions": {"numpy": "2.3.1"}},
    }
    return event | changes


def asked(number: int, kind: str = "random", at: float = 1001.0, **config: float) -> Event:
    values = SPACE.start | config
    origin = {"kind": kind, "parents": []}
    return {"event": "ask", "time": at, "trial": number, "config": values, "origin": origin}


def reported(number: int, epoch: int, fitness: float | None, at: float = 1002.0) -> Event:
    metrics = {"fitness": fitness}
    return {"event": "report", "time": at, "trial": number, "attempt": 0, "epoch": epoch, "metrics": metrics}


def told(number: int, fitness: float | None, at: float = 1003.0, **more: Any) -> Event:
    event = {
        "event": "tell",
        "time": at,
        "trial": number,
        "status": "failed" if fitness is None else "finished",
        "fitness": fitness,
        "reason": None,
        "metrics": {},
        "epochs": 2,
        "seconds": 60.0,
        "result": {},
    }
    return event | more


def small_run() -> list[Event]:
    return [
        header(),
        asked(0, "start"),
        asked(1, lr0=0.001),
        asked(2, "mutation", mixup=0.5),
        reported(0, 0, 0.2),
        reported(0, 1, 0.4),
        reported(1, 0, None),
        told(0, 0.4),
        told(1, None, 1004.0, reason="the loss is not finite"),
        told(2, 0.5, 1005.0, metrics={"map50": 0.61}),
        asked(3),
    ]


def read(events: list[Event]) -> Reader:
    return Reader(build_page(build_view(events)))


def write_journal(folder: Path, events: list[Event]) -> Path:
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_the_headline_says_best_gain_trials_and_hours() -> None:
    text = read(small_run()).text
    assert "first-run in progress" in text
    assert "0.5000 trial 2start 0.4000, +0.1000 (+25 %)" in text
    assert "3 of 102 finished, 1 failed, 1 running" in text
    assert "2 min of training" not in text
    assert "3 min of training, 2 at once" in text


@pytest.mark.parametrize(
    ("lr0", "mixup", "said"),
    [(0.0999, 0.5, True), (1e-5, 0.5, True), (0.01, 0.0, False), (0.01, 1.0, False), (0.05, 0.5, False)],
)
def test_a_winner_at_the_edge_of_a_range_is_said_but_not_at_a_natural_bound(
    lr0: float, mixup: float, said: bool
) -> None:
    text = read([header(), asked(0, lr0=lr0, mixup=mixup), told(0, 0.4)]).text
    assert ("At the edge of the range: lr0; a wider one" in text) == said
    assert ("edge of the range" in text) == said


def test_the_page_needs_nothing_beside_itself() -> None:
    source = build_page(build_view(small_run()))
    assert not re.search(r"https?:|url\(|@import|\ssrc=|<link", source)
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in Reader(source).starts)


def test_no_text_of_the_journal_becomes_markup() -> None:
    space = Space([Gene(HOSTILE, 0, 1, start=0.5)]).to_dict()
    ask = asked(0, HOSTILE) | {"config": {HOSTILE: 0.5}}
    ask["origin"] = {"kind": "start", "parents": [HOSTILE]}
    texts = {"name": HOSTILE, "settings": {HOSTILE: HOSTILE}, "provenance": {HOSTILE: [HOSTILE]}}
    events = [
        header(space=space, **texts),
        ask,
        ask | {"trial": 1, "origin": {"kind": HOSTILE, "parents": []}},
        reported(0, 0, 0.3),
        told(0, 0.5, metrics={HOSTILE: 0.5}, result={"anchors": [[[1.0, HOSTILE]]]}),
        told(1, None, reason=HOSTILE),
        {"event": "stop", "time": 1010.0, "reason": HOSTILE},
    ]
    source = build_page(build_view(events))
    reader = Reader(source)
    names = [name for name, _ in reader.starts]
    assert names.count("script") == 1
    assert f"<script>{SCRIPT}</script>" in source
    assert "img" not in names
    assert not [key for _, attrs in reader.starts for key in attrs if key.startswith("on")]
    assert reader.text.count("<img src=x onerror=alert(2)>") >= 8


def test_a_failed_trial_is_listed_with_its_reason_after_the_finished_and_running_ones() -> None:
    rows = [row for row in read(small_run()).rows if re.match(r"\d+\|", row)]
    assert [row.split("|")[0] for row in rows] == ["2", "0", "3", "1"]
    assert "failed|the loss is not finite|" in rows[-1]
    assert rows[0].startswith("2|0.5000|finished|mutation|2|60 s|0.01|0.5|")


def test_the_winner_stands_beside_the_start() -> None:
    rows = read(small_run()).rows
    assert any(row.startswith("mixup|0|0.5|+0.5|0|") for row in rows)
    assert any(row.startswith("lr0|0.01|0.01|none|1e-5|") for row in rows)


def test_a_start_that_still_leads_is_said_to_lead() -> None:
    events = [header(), asked(0, "start"), asked(1), told(0, 0.5), told(1, 0.3)]
    assert "the start configuration still leads" in read(events).text


def test_a_run_whose_start_failed_has_a_best_without_a_gain() -> None:
    events = [header(), asked(0, "start"), asked(1), told(0, None), told(1, 0.3)]
    assert "0.3000 trial 1the start has no fitness" in read(events).text


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([header()], "No trial has been asked yet."),
        ([header(), asked(0, "start")], "No epoch has been reported yet."),
        ([header(), asked(0, "start"), reported(0, 0, 0.1)], "No trial has ended yet."),
        ([header(), asked(0, "start"), told(0, None, reason="died")], "No trial has finished yet."),
    ],
)
def test_a_run_without_a_finished_trial_has_a_page(events: list[Event], words: str) -> None:
    assert words in read(events).text


def test_a_complete_run_is_finished_and_a_stopped_one_says_why() -> None:
    done = [
        header(trials=1),
        asked(0, "start"),
        told(0, 0.5),
        {"event": "stop", "time": 1e4, "reason": "done"},
    ]
    assert "first-run finished" in read(done).text
    halted = [header(), {"event": "stop", "time": 1e4, "reason": "interrupted"}]
    assert "first-run stopped: interrupted" in read(halted).text


def test_time_between_sessions_is_not_spent() -> None:
    day = 86400.0
    events = [
        header(time=0.0),
        asked(0, "start", at=10.0),
        {"event": "stop", "time": 7200.0, "reason": "interrupted"},
        {"event": "resume", "time": 30 * day, "trials": 10},
        told(0, 0.5, 30 * day + 3600),
    ]
    assert "Time spent3.0 h" in read(events).text


def test_the_best_so_far_never_falls() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.6, 40).tolist()
    asks = [asked(n, "random" if n else "start") for n in range(40)]
    tells = [told(n, score, 2000.0 + n) for n, score in enumerate(scores)]
    source = build_page(build_view([header(), *asks, *tells]))
    path = re.search(r'<path d="M([^"]+)" class="curve-best"><title>best so far', source)
    assert path is not None
    heights = [float(height) for height in re.findall(r"V([\d.]+)", path.group(1))]
    assert len(heights) == 40
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[0]


def test_a_collapsed_trial_lies_below_the_axis_and_leaves_the_others_apart() -> None:
    scores = [0.50, 0.51, 0.52, 0.53, 0.54, 0.001]
    asks = [asked(n, "random" if n else "start") for n in range(6)]
    events = [header(), *asks, *(told(n, score, 2000.0 + n) for n, score in enumerate(scores))]
    uses = [attrs for name, attrs in read(events).starts if name == "use" and attrs["href"] == "#mark-below"]
    charts_and_legends = (1 + len(SPACE)) + 2
    assert len(uses) == charts_and_legends


def test_anchors_are_drawn_over_the_shapes_with_their_figures() -> None:
    given_anchors = [[[10, 13], [16, 30]], [[33, 23], [62, 45]]]
    shapes = {
        "wh": [[12.0, 14.5], [40.0, 38.0]],
        "image_size": 320,
        "anchors_before": given_anchors,
        "before": {"bpr": 0.9, "aat": 2.5, "fitness": 0.6, "mean_best_iou": 0.55},
        "after": {"bpr": 0.99, "aat": 3.5, "fitness": 0.7, "mean_best_iou": None},
    }
    result = {"anchors": [[[9.0, 12.0], [15.0, 28.0]], [[30.0, 20.0], [60.0, 40.0]]]}
    reader = read([header(shapes=shapes), asked(0, "start"), told(0, 0.5, result=result)])
    classes = [attrs.get("class") for name, attrs in reader.starts if name == "use"]
    assert classes.count("anchor l0") == classes.count("anchor l1") == 4  # two before, two after
    reaches = [attrs.get("class") for name, attrs in reader.starts if name == "path"]
    assert reaches.count("reach s0") == reaches.count("reach s1") == 4
    assert "missed" not in reaches
    assert "100.00% of the boxes shown are reached, threshold 4" in reader.text
    assert any(row.startswith("Best possible recall|0.9|0.99|") for row in reader.rows)
    assert any(row.startswith("Mean best IoU|0.55|–|") for row in reader.rows)
    assert any("9×12" in row and "10×13" in row for row in reader.rows)


def test_boxes_out_of_reach_stand_out_at_the_threshold_of_each_set() -> None:
    shapes = {"wh": [[12.0, 14.0], [100.0, 14.0]], "anchors_before": [[[10, 10]]], "image_size": 320}
    events = [
        header(shapes=shapes, settings={"hyp": {"anchor_t": 3.0}}),
        asked(0, "start", anchor_t=12.0),
        told(0, 0.5, result={"anchors": [[[10, 10]]]}),
    ]
    reader = read(events)
    assert "before · 50.00% of the boxes shown are reached, threshold 3" in reader.text
    assert "after · 100.00% of the boxes shown are reached, threshold 12" in reader.text
    assert [attrs.get("class") for name, attrs in reader.starts if name == "path"].count("missed") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": ["not", "a", "mapping"], "resources": None, "provenance": None},
        {"shapes": {"wh": [[1], "x", [0, 3], [None, 2]], "anchors_before": [3, [[1, "a"]]], "before": 7}},
        {"shapes": [], "seed": None},
        {"name": "\ud800 half a pair"},
    ],
)
def test_odd_facts_in_the_header_do_not_spoil_the_page(changes: dict[str, Any]) -> None:
    assert "Fitness over trials" in read([header(**changes), asked(0, "start"), told(0, 0.5)]).text
    build_page(build_view([header(**changes)])).encode()


FITNESS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FITNESS, FITNESS, st.floats()), max_size=8))
def test_whatever_the_numbers_the_page_is_whole_and_every_coordinate_a_number(
    rows: list[tuple[float | None, float | None, float]],
) -> None:
    events = [header()]
    for number, (fitness, epoch_fitness, value) in enumerate(rows):
        events.append(asked(number, "random" if number else "start", mixup=value))
        events.append(reported(number, 0, epoch_fitness))
        events.append(told(number, fitness))
    for name, attrs in read(events).starts:
        if name in ("use", "circle", "line", "path", "text"):
            places = " ".join(attrs.get(key) or "" for key in ("x", "y", "cx", "cy", "x1", "y1", "y2", "d"))
            assert not re.search("nan|inf", places), (name, attrs)


def test_the_same_journal_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_journal(tmp_path, small_run())
    first = write_report(folder).read_bytes()
    second = write_report(folder, tmp_path / "again.html").read_bytes()
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.html", "journal.jsonl", "report.html"]


def test_a_page_is_written_while_the_last_line_of_the_journal_is(tmp_path: Path) -> None:
    folder = write_journal(tmp_path, small_run())
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "tell", "tri')
    assert "first-run" in write_report(folder).read_text()


def test_a_run_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"journal\.jsonl"):
        write_report(tmp_path)


def test_a_target_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = write_journal(tmp_path, small_run())
    (tmp_path / "taken").mkdir()
    with pytest.raises(ReportError, match="taken: the report cannot be written"):
        write_report(folder, tmp_path / "taken")
    with pytest.raises(ReportError, match="no-folder"):
        write_report(folder, tmp_path / "no-folder" / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "taken"]


def test_three_hundred_trials_of_twenty_genes_make_a_small_page_soon() -> None:
    rng = np.random.default_rng(1)
    space = Space([Gene(f"gene_{n}", 1e-4, 1.0, start=0.1, log=n % 2 == 0) for n in range(20)])
    events = [header(space=space.to_dict(), trials=300)]
    for number in range(300):
        config = space.decode(rng.random(20))
        events.append(asked(number, "random" if number else "start") | {"config": config})
        events.extend(reported(number, epoch, float(rng.random())) for epoch in range(100))
        events.append(told(number, float(rng.random()), 2000.0 + number))
    begun = time.perf_counter()
    source = build_page(build_view(events))
    assert time.perf_counter() - begun < 10
    assert len(source.encode()) < 5_000_000


def test_a_time_that_is_none_is_said_to_be_unknown() -> None:
    assert moment(None) == moment(float("nan")) == moment(-1.0) == "an unknown time"
    assert moment(1767225600) == "2026-01-01 00:00 UTC"
