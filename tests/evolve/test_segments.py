import json
import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve import segments
from evolve.object_store import ObjectStore
from evolve.run_state import JournalError
from evolve.segments import SegmentLog, SegmentWriter, Span, blocks, cover
from evolve.store_url import StoreUrl


def new_log() -> SegmentLog:
    return SegmentLog(ObjectStore(StoreUrl("memory", f"/{secrets.token_hex(8)}"), 5))


def line(number: int) -> bytes:
    return json.dumps({"event": "stop", "reason": str(number)}).encode() + b"\n"


def test_an_empty_log_has_no_lines() -> None:
    assert new_log().read().lines == b""


def test_lines_come_back_in_order_whoever_wrote_them() -> None:
    log = new_log()
    first = SegmentWriter(log, "one")
    first.append(line(0) + line(1))
    second = SegmentWriter(log, "two")
    second.append(line(2))
    found = log.read()
    assert (found.lines, found.count, found.openings) == (line(0) + line(1) + line(2), 4, {0, 2})
    assert second.content.lines == line(0) + line(1)


def test_a_writer_that_was_followed_by_another_is_told_who_and_writes_nothing() -> None:
    log = new_log()
    old = SegmentWriter(log, "11 on here")
    SegmentWriter(log, "22 on there").append(line(0))
    with pytest.raises(JournalError, match=r"another driver has taken the run over \(22 on there\)"):
        old.append(line(1))
    assert log.read().lines == line(0)


def test_a_writer_that_slept_while_all_was_put_together_and_deleted_still_stumbles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "BLOCK", 4)
    log = new_log()
    old = SegmentWriter(log, "old")
    new = SegmentWriter(log, "new")
    for number in range(40):
        new.append(line(number))
        log.merge(new.content.openings)
    assert len(log.spans()) < 12
    with pytest.raises(JournalError, match="taken the run over"):
        old.append(line(99))
    assert log.read().lines == b"".join(map(line, range(40)))


@given(st.lists(st.sampled_from(["write", "merge", "open"]), max_size=120), st.sampled_from([2, 3, 4]))
def test_no_line_is_lost_or_doubled_however_writing_and_merging_alternate(
    steps: list[str], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "BLOCK", block)
        log = new_log()
        writers = [SegmentWriter(log, "first")]
        written = b""
        for number, step in enumerate(steps):
            if step == "open":
                writers.append(SegmentWriter(log, str(number)))
            elif step == "merge":
                log.merge(writers[-1].content.openings)
            else:
                writers[-1].append(line(number))
                written += line(number)
        found = log.read()
        assert found.lines == written
        assert found.count == writers[-1].next_number
        assert len(found.openings) == len(writers)
        for old in writers[:-1]:
            with pytest.raises(JournalError):
                old.append(b"late\n")


def test_a_killed_merge_leaves_what_the_next_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK", 4)
    log = new_log()
    writer = SegmentWriter(log, "one")
    for number in range(7):
        writer.append(line(number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "delete", lambda self, names: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.merge(writer.content.openings)
    assert log.read().lines == b"".join(map(line, range(7)))
    log.merge(writer.content.openings)
    assert log.spans() == [Span(0, 0), Span(0, 3), Span(4, 7)]
    assert log.read().lines == b"".join(map(line, range(7)))


def test_a_reader_whose_segments_are_deleted_under_it_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK", 4)
    log = new_log()
    writer = SegmentWriter(log, "one")
    for number in range(9):
        writer.append(line(number))
    listed = SegmentLog.spans

    def merged_meanwhile(self: SegmentLog) -> list[Span]:
        found = listed(self)
        monkeypatch.setattr(SegmentLog, "spans", listed)
        log.merge(writer.content.openings)
        return found

    monkeypatch.setattr(SegmentLog, "spans", merged_meanwhile)
    assert log.read().lines == b"".join(map(line, range(9)))


def test_a_segment_that_is_missing_is_said() -> None:
    log = new_log()
    writer = SegmentWriter(log, "one")
    for number in range(3):
        writer.append(line(number))
    log.drop(2)
    with pytest.raises(JournalError, match="segment 2 is missing"):
        log.read()


@pytest.mark.parametrize(
    ("spans", "chosen", "missing"),
    [
        ([], [], None),
        ([Span(0, 0), Span(1, 1)], [Span(0, 0), Span(1, 1)], None),
        ([Span(0, 0), Span(0, 63), Span(5, 5), Span(64, 64)], [Span(0, 63), Span(64, 64)], None),
        ([Span(0, 63), Span(0, 4095), Span(64, 127)], [Span(0, 4095)], None),
        ([Span(1, 1)], [], 0),
        ([Span(0, 0), Span(2, 2)], [Span(0, 0)], 1),
    ],
)
def test_the_widest_objects_are_read(spans: list[Span], chosen: list[Span], missing: int | None) -> None:
    assert cover(spans) == (chosen, missing)


def test_blocks_are_made_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK", 2)
    assert blocks([]) == []
    assert blocks([Span(n, n) for n in range(5)]) == [Span(0, 1), Span(2, 3), Span(0, 3)]
    assert blocks([Span(0, 3), *(Span(n, n) for n in range(4, 8))]) == [
        Span(4, 5),
        Span(6, 7),
        Span(4, 7),
        Span(0, 7),
    ]


def test_on_a_real_server_a_put_whose_answer_is_lost_is_no_other_writer(bucket: Any) -> None:
    log = SegmentLog(ObjectStore(StoreUrl("s3", "bucket/runs/first"), 5))
    writer = SegmentWriter(log, "one")
    bucket.fault = lambda method, path: (
        "unheard" if method == "PUT" and bucket.asked.count((method, path)) < 3 else None
    )
    for number in range(5):
        writer.append(line(number))
    bucket.fault = lambda method, path: None
    assert log.read().lines == b"".join(map(line, range(5)))
    SegmentWriter(log, "two")
    with pytest.raises(JournalError, match="taken the run over"):
        writer.append(line(5))
