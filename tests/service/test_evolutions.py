"""Evolutions over HTTP: what the journals say, as it is said there, and events while they grow."""

import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.service_jobs import evolve_words
from cluster.service_models import Evolution, Evolutions, NewEvolution, TrialDetail
from evolve.confirm import Plan, confirm_event, next_confirmation
from evolve.journal import Journal, fold, read_journal
from evolve.trial_state import TrialState

Serve = Callable[..., Any]
Record = Callable[..., Path]


def test_the_list_has_every_run_the_newest_first_and_one_that_is_damaged_with_its_reason(
    serve: Serve, record: Record
) -> None:
    record("first", time=100.0)
    record("second", trials=3, planned=9, time=200.0)
    (record("broken") / "journal.jsonl").write_text("no json\n")
    live = serve()
    found = Evolutions.model_validate_json(live.http.get("/evolutions").content).evolutions
    assert [each.id for each in found] == ["second", "first", "broken"]
    second, first, broken = found
    assert (first.state, first.finished, first.failed, first.planned) == ("finished", 4, 1, 5)
    assert (second.state, second.asked) == ("interrupted", 3)
    assert first.best is not None
    assert (first.best.trial, first.start_fitness) == (4, 0.1)
    assert broken.state == "failed"
    assert "journal.jsonl:1" in str(broken.reason)


def test_one_evolution_has_its_genes_trials_winner_and_anchors(serve: Serve, record: Record) -> None:
    record("night")
    live = serve()
    night = Evolution.model_validate_json(live.http.get("/evolutions/night").content)
    assert [gene.name for gene in night.genes] == ["lr0", "mosaic"]
    assert [trial.id for trial in night.trials] == [0, 1, 2, 3, 4]
    assert night.trials[1].reason == "the loss is no number"
    assert night.winner is not None
    assert night.winner.config == night.trials[4].config
    assert night.anchors is not None
    assert (night.anchors.bpr_before, night.anchors.bpr_after) == (0.5, 0.99)
    assert night.offset == (live.runs / "night" / "journal.jsonl").stat().st_size
    trial = TrialDetail.model_validate_json(live.http.get("/evolutions/night/trials/2").content)
    assert [point.metrics["map50"] for point in trial.curve] == pytest.approx([0.05, 0.1, 0.15])


def test_a_confirmed_winner_has_the_fitness_that_confirmed_it_and_not_that_for_which_it_was_chosen(
    serve: Serve, record: Record
) -> None:
    folder = record("night")
    live = serve()
    before = Evolution.model_validate_json(live.http.get("/evolutions/night").content)
    assert before.winner is not None
    assert (before.winner.fitness, before.winner.epochs, before.winner.confirmed) == (0.14, 3, False)
    assert before.winner.words.startswith("Not confirmed: fitness 0.1400 after one training of 3 epochs")
    with Journal(folder / "journal.jsonl") as journal:
        state = fold(read_journal(journal.path))
        state.apply(journal.append(confirm_event(state, Plan(1, epochs=6, seeds=2))))
        while (ask := next_confirmation(state)) is not None:
            state.apply(journal.append(ask))
            fitness = 0.05 if ask["origin"]["confirms"] == 0 else 0.11 + 0.02 * (ask["origin"]["seed"] % 2)
            told = {"trial": ask["trial"], "status": "finished", "fitness": fitness, "epochs": 6}
            state.apply(journal.append({"event": "tell", **told}))
    night = Evolution.model_validate_json(live.http.get("/evolutions/night").content)
    assert night.winner is not None
    assert (night.winner.trial, night.winner.runs, night.winner.epochs) == (4, 2, 6)
    assert night.winner.confirmed
    assert night.winner.words.startswith("Confirmed: fitness 0.1200 ")
    listed = Evolutions.model_validate_json(live.http.get("/evolutions").content).evolutions[0]
    for each in (night, listed):
        assert each.best is not None
        assert (each.best.trial, each.best.fitness) == (4, pytest.approx(0.12))
        assert each.start_fitness == pytest.approx(0.05)


def test_a_search_that_had_enough_is_finished_and_says_why(serve: Serve, record: Record) -> None:
    folder = record("night", planned=9, patience=3)
    with Journal(folder / "journal.jsonl") as journal:
        journal.append({"event": "enough", "reason": "the last 3 trials gave nothing better"})
    night = Evolution.model_validate_json(serve().http.get("/evolutions/night").content)
    assert (night.state, night.planned) == ("finished", 5)
    assert night.reason == "the last 3 trials gave nothing better"


def test_stopping_and_confirming_are_handed_over_as_the_command_knows_them(tmp_path: Path) -> None:
    new = NewEvolution(
        data="digits", name="night", epochs=30, rungs=[3, 10], patience=20, epoch_budget=900, confirm=2
    )
    words = evolve_words(new, "digits", "yolov5s", tmp_path / "night")
    wanted = {"--epochs": "3,10,30", "--patience": "20", "--epoch-budget": "900", "--confirm": "2"}
    for option, value in wanted.items():
        assert words[words.index(option) + 1] == value
    assert "--confirm-epochs" not in words
    with pytest.raises(
        ValueError, match=r"rungs must rise and be fewer than the 30 epochs, but got \[3, 30\]"
    ):
        NewEvolution(data="digits", name="night", epochs=30, rungs=[3, 30])


def test_what_is_known_is_not_sent_again_and_what_grew_is(
    serve: Serve, record: Record, trials: Callable[..., None]
) -> None:
    folder = record("night", planned=9)
    live = serve()
    first = live.http.get("/evolutions/night")
    again = live.http.get("/evolutions/night", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    with Journal(folder / "journal.jsonl") as journal:
        trials(journal, 2, first=5)
        live_now = live.http.get("/evolutions/night", headers={"if-none-match": first.headers["etag"]})
        assert live_now.json()["state"] == "running"
    assert len(live_now.json()["trials"]) == 7
    assert live.http.get("/evolutions/night").json()["state"] == "interrupted"


def test_a_run_that_takes_the_name_of_a_removed_one_is_read_afresh(serve: Serve, record: Record) -> None:
    folder = record("night", trials=6)
    live = serve()
    assert len(live.http.get("/evolutions/night").json()["trials"]) == 6
    shutil.rmtree(folder)
    assert live.http.get("/evolutions/night").status_code == 404
    record("night", trials=2)
    assert len(live.http.get("/evolutions/night").json()["trials"]) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/evolutions/none", 404),
        ("/evolutions/none/events", 404),
        ("/evolutions/none/report", 404),
        ("/evolutions/none/export", 404),
        ("/evolutions/night/trials/77", 404),
        ("/evolutions/night/trials/x", 422),
        ("/evolutions/night/export?format=onnx", 422),
        ("/evolutions/%2e%2e", 404),
        ("/evolutions/..%2f..%2fetc", 404),
        ("/evolutions/%2fetc", 404),
        ("/evolutions/a%00b", 404),
        ("/evolutions/" + "x" * 300, 422),
        ("/static/../service.py", 404),
        ("/static/%2e%2e/service.py", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_line(serve: Serve, record: Record, path: str, status: int) -> None:
    record("night")
    live = serve()
    answer = live.http.get(path)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]


def read_events(answer: httpx.Response) -> Iterator[tuple[str, str | None, Any]]:
    kind, number = "", None
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            number = value
        elif name == "data":
            yield kind, number, json.loads(value)
            number = None


def test_events_tell_each_epoch_and_trial_once_and_go_on_behind_the_last_id(
    serve: Serve, tmp_path: Path, header: Callable[..., None], trials: Callable[..., None]
) -> None:
    live = serve()
    path = tmp_path / "runs" / "night" / "journal.jsonl"
    with Journal(path) as journal:
        header(journal, "night", 4)
        trials(journal, 1)
    known = live.http.get("/evolutions/night").json()["offset"]

    def go_on() -> None:
        with Journal(path) as journal:
            for number in (1, 2, 3):
                trials(journal, 1, first=number)
                time.sleep(0.2)

    driver = threading.Thread(target=go_on)
    told: list[tuple[str, str | None, Any]] = []
    with live.http.stream("GET", "/evolutions/night/events", headers={"last-event-id": str(known)}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        driver.start()
        for event in read_events(answer):
            told.append(event)
            if event[0] == "end":
                if event[2]["state"] == "finished":
                    break
                driver.join()  # the driver had not taken the lock yet, or has let it go in between
                last = [number for _, number, _ in told if number][-1]
                with live.http.stream(
                    "GET", "/evolutions/night/events", headers={"last-event-id": str(last)}
                ) as rest:
                    told += list(read_events(rest))
                break
    driver.join()
    epochs = [(data["trial"], data["epoch"]) for kind, _, data in told if kind == "epoch"]
    assert epochs == [(trial, epoch) for trial in (1, 2, 3) for epoch in range(3)]
    ended = [data["id"] for kind, _, data in told if kind == "trial" and data["state"] != "running"]
    assert sorted(set(ended)) == [1, 2, 3]
    assert told[-1][0] == "end"
    assert told[-1][2]["asked"] == 4


def test_an_id_that_is_no_place_in_the_journal_begins_at_its_end(serve: Serve, record: Record) -> None:
    record("night")
    live = serve()
    for number in ("17", "99999999", "-3", "x", "1" * 19):
        with live.http.stream("GET", "/evolutions/night/events", headers={"last-event-id": number}) as answer:
            assert [kind for kind, _, _ in read_events(answer)] == ["summary", "end"]


def test_a_client_that_reads_nothing_holds_up_nobody_and_streams_beyond_the_limit_are_refused(
    serve: Serve, record: Record
) -> None:
    folder = record("night", planned=50)
    live = serve(streams=2)
    with ExitStack() as kept:
        kept.enter_context(Journal(folder / "journal.jsonl"))  # it is driven, so the streams stay open
        watching = []
        for _ in range(2):
            answer = kept.enter_context(live.http.stream("GET", "/evolutions/night/events"))
            watching.append(answer.iter_lines())  # kept: a stream whose reader is gone is closed
            assert next(watching[-1]) == "event: summary"
        with live.http.stream("GET", "/evolutions/night/events") as refused:
            assert refused.status_code == 429
            assert refused.headers["retry-after"]
        assert live.http.get("/evolutions/night").status_code == 200


def test_the_report_and_the_counters_are_made_from_the_journal(serve: Serve, record: Record) -> None:
    record("night")
    live = serve()
    page = live.http.get("/evolutions/night/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "night" in page.text
    live.http.get("/evolutions/night")
    counted = live.http.get("/metrics").text
    assert 'beagle_evolutions{state="finished"} 1.0' in counted
    assert 'route="/evolutions/{run_id}"' in counted
    assert live.http.get("/ready").json()["ready"] is True


def test_an_export_that_cannot_be_made_is_refused_and_leaves_nothing(
    serve: Serve, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    record("night")  # its trials kept no weights
    live = serve()
    answer = live.http.get("/evolutions/night/export?format=yolov5")
    assert answer.status_code == 422
    assert list(place.iterdir()) == []


def test_a_real_evolution_is_exported_as_a_zip_that_is_whole(serve: Serve, exported_run: Path) -> None:
    live = serve(exported_run.parent)
    answer = live.http.get(f"/evolutions/{exported_run.name}/export?format=yolov5")
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = {Path(name).name for name in archive.namelist()}
    assert {"hyp.yaml", "verify.json", "train.sh"} <= names


def test_states_of_trials_are_those_of_the_journal() -> None:
    kinds = TrialState.__annotations__["status"]
    assert set(getattr(kinds, "__args__", ())) == {"running", "finished", "failed", "stopped"}
