import os
from pathlib import Path
from typing import Any

import pytest

from evolve.object_store import ObjectStore
from evolve.store_url import StoreError, StoreUrl

KINDS = ("s3", "file", "memory")


def at(url: str) -> StoreUrl:
    found = StoreUrl.parse(url)
    assert found is not None
    return found


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store of each kind, with nothing in it."""
    if request.param == "s3":
        request.getfixturevalue("bucket")
        return ObjectStore(at("s3://bucket/runs/first"), 5)
    if request.param == "file":
        return ObjectStore(at(f"file://{tmp_path}/store"), 5)
    return ObjectStore(at(f"memory://{tmp_path.name}/{os.getpid()}"), 5)


@pytest.fixture
def s3(bucket: Any) -> ObjectStore:
    return ObjectStore(at("s3://bucket/runs/first"), 5)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/runs/first", "s3://bucket/runs/first"),
        ("s3a://bucket/runs/first/", "s3://bucket/runs/first"),
        (Path("s3://bucket/runs/first"), "s3://bucket/runs/first"),
        ("gcs://bucket//first", "gs://bucket/first"),
        ("az://box/first", "abfs://box/first"),
        ("file:///mnt/runs/first", "file:///mnt/runs/first"),
        ("memory://first", "memory://first"),
    ],
)
def test_a_url_is_known_by_its_protocol_and_has_one_way_to_be_written(text: str | Path, url: str) -> None:
    found = at(str(text))
    assert (str(found), found.name) == (url, "first")
    assert StoreUrl.parse(str(found)) == found


@pytest.mark.parametrize("text", ["runs/first", "/mnt/runs/first", "first", "C:", "./s3/x", ""])
def test_a_path_is_no_url(text: str) -> None:
    assert StoreUrl.parse(text) is None
    assert StoreUrl.parse(Path(text)) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://host/first", "can be kept on s3, gs, abfs, file, memory or in a folder"),
        ("s3://", "must be PROTOCOL://BUCKET/FOLDER"),
        ("s3://bucket/../other", "must be PROTOCOL://BUCKET/FOLDER"),
        ("s3://bucket/first?versionId=3", "must be PROTOCOL://BUCKET/FOLDER"),
    ],
)
def test_a_url_that_can_hold_no_run_is_refused(text: str, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        StoreUrl.parse(text)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="by the environment, never by the URL: s3://…@bucket") as caught:
        StoreUrl.parse("s3://name:very-secret@bucket/first")
    assert "very-secret" not in str(caught.value)


def test_an_object_is_created_once_and_its_own_writer_is_told_so_twice(store: ObjectStore) -> None:
    assert store.create("a/1", b"mine")
    assert store.create("a/1", b"mine")
    assert not store.create("a/1", b"another's")
    assert store.get("a/1") == b"mine"


def test_objects_are_put_read_listed_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    assert (store.names(), store.get("a/1"), store.get_all([])) == ([], None, [])
    store.put("a/1", b"one")
    store.put("a/1", b"two")
    (tmp_path / "file").write_bytes(b"\0" * 100_000)
    store.upload(tmp_path / "file", "a/b/file")
    assert store.names() == ["a/1", "a/b/file"]
    assert store.names("a/b") == ["a/b/file"]
    assert store.get_all(["a/1", "none", "a/b/file"]) == [b"two", None, b"\0" * 100_000]
    store.download("a/b/file", tmp_path / "back" / "file")
    assert (tmp_path / "back" / "file").read_bytes() == b"\0" * 100_000
    store.delete(["a/1", "none"])
    assert store.names() == ["a/b/file"]


def test_what_is_not_there_is_not_downloaded_and_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.download("none", tmp_path / "back" / "file")
    assert list((tmp_path / "back").iterdir()) == []


def test_a_good_store_passes_its_check_and_is_left_as_it_was(store: ObjectStore) -> None:
    store.check()
    assert store.names() == []


def test_a_store_that_overhears_conditions_is_refused(s3: ObjectStore, bucket: Any) -> None:
    bucket.fault = lambda method, path: "deaf"
    with pytest.raises(StoreError, match=r"puts an object over another although it was told not to"):
        s3.check()


@pytest.mark.parametrize("fault", ["busy", "cut", "unheard"])
def test_a_put_goes_through_when_the_store_fails_now_and_then(
    s3: ObjectStore, bucket: Any, fault: str
) -> None:
    left = [fault] * 3
    bucket.fault = lambda method, path: left.pop() if left and method == "PUT" else None
    assert s3.create("a/1", b"mine")
    assert left == []
    assert s3.get("a/1") == b"mine"
    assert not s3.create("a/1", b"another's")


def test_a_large_file_whose_part_is_lost_on_the_way_arrives_whole(
    s3: ObjectStore, bucket: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(60_000_000))  # over the 50 MB of one part
    left = ["cut", "busy"]
    bucket.fault = lambda method, path: left.pop() if left and method == "PUT" else None
    s3.upload(tmp_path / "file", "weights/last.pt")
    s3.download("weights/last.pt", tmp_path / "back")
    assert left == []
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_store_that_stays_away_is_given_up_with_its_own_words(bucket: Any) -> None:
    bucket.fault = lambda method, path: "busy"
    with pytest.raises(StoreError, match=r"s3://bucket/first: can't put a \(.*[Rr]educe your request rate"):
        ObjectStore(at("s3://bucket/first"), 1).put("a", b"")


def test_a_bucket_that_is_not_there_is_said_at_once(bucket: Any) -> None:
    with pytest.raises(StoreError, match="is there such a bucket"):
        ObjectStore(at("s3://moon/first")).put("a", b"")


def test_missing_credentials_are_said_at_once(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreError, match="credentials set in the environment"):
        ObjectStore(at("s3://bucket/first")).put("a", b"")


def test_a_file_system_that_is_full_or_read_only_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, no folder")
    with pytest.raises(StoreError, match="can't put a"):
        ObjectStore(at(f"file://{tmp_path}/store")).put("a", b"")
