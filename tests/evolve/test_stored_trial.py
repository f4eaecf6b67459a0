import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from evolve.object_store import ObjectStore
from evolve.segments import SegmentLog, Span
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import scratch_folder, spool_of
from evolve.stored_trial import StoredTrial, bring, run_kept, store_variables
from evolve.trainable import FAILURE_NOTE, Assignment, Outcome, Report, TrialError, run_trial


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BEAGLE_SCRATCH", str(tmp_path / "scratch"))


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> StoreUrl:
    if request.param == "s3":
        request.getfixturevalue("bucket")
        return StoreUrl("s3", "bucket/runs/first")
    return StoreUrl("file", f"{tmp_path}/store/first")


def attempt(url: StoreUrl, folder: Path, number: int = 0) -> StoredTrial:
    return StoredTrial(ObjectStore(url, 5), 7, number, folder)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_another_node_finds_the_files_of_the_last_save(url: StoreUrl, tmp_path: Path) -> None:
    one = attempt(url, tmp_path / "one")
    write(tmp_path / "one", weights__last="epoch 1", results="1")
    one.save(always=True)
    write(tmp_path / "one", weights__last="epoch 2", results="1,2")
    one.save(always=True)
    write(tmp_path / "one", weights__last="epoch 3, unsaved")
    attempt(url, tmp_path / "two", 1)
    assert contents(tmp_path / "two") == {"weights/last": "epoch 2", "results": "1,2"}


def test_what_is_left_out_or_was_deleted_does_not_come_back(url: StoreUrl, tmp_path: Path) -> None:
    one = attempt(url, tmp_path / "one")
    write(tmp_path / "one", gone="a", stays="b", **{".hidden": "c", ".dir__file": "d"})
    (tmp_path / "one" / "link").symlink_to("stays")
    one.save(always=True)
    (tmp_path / "one" / "gone").unlink()
    one.save(always=True)
    attempt(url, tmp_path / "two", 1)
    assert contents(tmp_path / "two") == {"stays": "b"}


def test_only_what_changed_is_sent_and_old_versions_are_deleted(bucket: Any, tmp_path: Path) -> None:
    trial = attempt(StoreUrl("s3", "bucket/runs/first"), tmp_path / "one")
    write(tmp_path / "one", large="x" * 2_000_000, last="1")
    trial.save(always=True)
    for epoch in range(2, 6):
        write(tmp_path / "one", last=str(epoch))
        trial.save(always=True)
    sent = [path for method, path in bucket.asked if method == "PUT"]
    assert sum("large" in path for path in sent) == 1
    names = ObjectStore(StoreUrl("s3", "bucket/runs/first")).names("trials/0007")
    assert [name.rsplit("/", 1)[-1] for name in names if "/saves/" not in name] == ["large", "last"]
    assert [name.rsplit("/", 1)[-1] for name in names if "/saves/" in name] == [
        "00000000.json",
        "00000005.json",
    ]
    time.sleep(0.05)  # the clock of files has ticked
    trial.save(always=True)
    before = len(bucket.asked)
    trial.save(always=True)
    assert len(bucket.asked) == before


def test_a_worker_given_up_for_lost_cannot_touch_its_successors_files(url: StoreUrl, tmp_path: Path) -> None:
    lost = attempt(url, tmp_path / "lost")
    write(tmp_path / "lost", last="epoch 1")
    lost.save(always=True)
    new = attempt(url, tmp_path / "new", 1)
    write(tmp_path / "lost", last="epoch 2 of the lost one")
    with pytest.raises(TrialError, match="another worker goes on with"):
        lost.save(always=True)
    write(tmp_path / "new", last="epoch 2 of the new one")
    new.save(always=True)
    write(tmp_path / "lost", last="epoch 3 of the lost one")
    with pytest.raises(TrialError, match="another worker goes on with"):
        lost.save(always=True)
    attempt(url, tmp_path / "third", 2)
    assert contents(tmp_path / "third") == {"last": "epoch 2 of the new one"}
    # What the lost one had sent is swept away by the next attempt.
    assert len([name for name in ObjectStore(url).names("trials") if "/saves/" not in name]) == 1


def test_a_save_that_was_cut_short_is_as_none(
    url: StoreUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = attempt(url, tmp_path / "one")
    write(tmp_path / "one", last="epoch 1", best="epoch 1")
    trial.save(always=True)
    write(tmp_path / "one", last="epoch 2", best="epoch 2")
    with monkeypatch.context() as patch:
        patch.setattr(SegmentLog, "put_new", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trial.save(always=True)
    attempt(url, tmp_path / "two", 1)
    assert contents(tmp_path / "two") == {"last": "epoch 1", "best": "epoch 1"}


def test_saving_takes_no_more_than_a_tenth_of_the_time(bucket: Any, tmp_path: Path) -> None:
    trial = attempt(StoreUrl("s3", "bucket/runs/first"), tmp_path / "one")
    bucket.fault = lambda method, path: "late" if method == "PUT" else None
    write(tmp_path / "one", last="epoch 1")
    trial.save()
    sent = len(bucket.asked)
    write(tmp_path / "one", last="epoch 2")
    trial.save()
    assert len(bucket.asked) == sent  # half a second was spent just now
    trial.save(always=True)
    assert len(bucket.asked) > sent


def test_a_save_that_names_files_elsewhere_is_refused(url: StoreUrl, tmp_path: Path) -> None:
    trial = attempt(url, tmp_path / "one")
    write(tmp_path / "one", last="epoch 1")
    trial.save(always=True)
    log = SegmentLog(ObjectStore(url), "trials/0007/saves", ".json")
    save = json.loads(log.get(1) or b"")
    save["files"]["../../escaped"] = save["files"]["last"]
    ObjectStore(url).put(log.path(Span(1, 1)), json.dumps(save).encode())
    with pytest.raises(StoreError, match="must name files of its trial"):
        attempt(url, tmp_path / "two", 1)
    ObjectStore(url).put(log.path(Span(9, 9)), b"no json")
    with pytest.raises(StoreError, match="is no save of a trial"):
        attempt(url, tmp_path / "two", 1)


def two_epochs(assignment: Assignment, report: Report) -> Outcome:
    folder = Path(assignment.folder)
    assert folder.parts[-2:] == ("trials", "0007")
    begun = (folder / "weights" / "last").exists()
    write(folder, weights__last="epoch 1")
    report(0, {"fitness": 0.1})
    if not begun and assignment.settings.get("fails"):
        raise RuntimeError("the device was lost")
    write(folder, weights__last="epoch 2")
    report(1, {"fitness": 0.2})
    return Outcome(0.2, result={"best": "trials/0007/weights/last"})


def run(url: StoreUrl, told: list[int], number: int = 0, **settings: bool) -> Outcome:
    assignment = Assignment(7, {"x": 0.5}, settings, "/nowhere", attempt=number, store=str(url))
    return run_kept(
        assignment,
        lambda epoch, _: told.append(epoch),
        lambda given, report: run_trial(given, two_epochs, report),
    )


def test_a_trial_runs_on_this_machine_and_leaves_its_files_in_the_store_alone(url: StoreUrl) -> None:
    told: list[int] = []
    assert run(url, told).fitness == 0.2
    assert told == [0, 1]
    assert contents(scratch_folder(url)) == {"0007/.claim": ""}
    spool = spool_of(url)
    assert bring(spool, "trials/0007/weights/last").read_text() == "epoch 2"
    assert not bring(spool, "trials/0007/weights/none").exists()
    assert not bring(spool, "trials/0009/weights/last").exists()


def test_why_an_attempt_failed_is_in_the_store_until_the_next_one_begins(url: StoreUrl) -> None:
    told: list[int] = []
    with pytest.raises(RuntimeError, match="device was lost"):
        run(url, told, fails=True)
    spool = spool_of(url)
    assert "the device was lost" in bring(spool, f"trials/0007/{FAILURE_NOTE}").read_text()
    assert bring(spool, "trials/0007/weights/last").read_text() == "epoch 1"
    assert run(url, told, 1, fails=True).fitness == 0.2
    assert not bring(spool, f"trials/0007/{FAILURE_NOTE}").exists()


def test_a_store_that_is_away_halts_the_run_and_fails_no_trial(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evolve.stored_trial.PATIENCE_S", 1.0)
    bucket.fault = lambda method, path: "busy"
    begun = time.monotonic()
    outcome = run(StoreUrl("s3", "bucket/runs/first"), [])
    assert (outcome.halt, outcome.fitness) == (True, None)
    assert "s3://bucket/runs/first: can't" in str(outcome.reason)
    assert time.monotonic() - begun < 60


def test_files_of_a_run_in_a_folder_are_where_they_are(tmp_path: Path) -> None:
    assert bring(tmp_path, "trials/0007/weights/last") == tmp_path / "trials/0007/weights/last"


def test_a_store_s_variables_go_to_the_workers_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OTHER_SECRET", "secret")
    found = store_variables()
    assert found["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert "OTHER_SECRET" not in found


def test_a_worker_s_own_variables_have_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "the worker's")
    monkeypatch.delenv("AWS_REGION", raising=False)
    given = {"AWS_PROFILE": "the driver's", "AWS_REGION": "the driver's"}
    seen: list[str] = []

    def look(assignment: Assignment, report: Report) -> Outcome:
        seen.extend(os.environ[name] for name in given)
        return Outcome(0.1)

    run_kept(Assignment(0, {}, {}, str(tmp_path)), lambda epoch, metrics: None, look, given)
    assert seen == ["the worker's", "the driver's"]
    monkeypatch.setenv("AWS_REGION", "")  # so that it is put back
