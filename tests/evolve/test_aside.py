"""Files that are there as a whole or not at all."""

import threading
from pathlib import Path

import pytest

from evolve.aside import write_aside


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_aside(path, "é")
    assert path.read_bytes() == b"\xc3\xa9"
    write_aside(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "note" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="note"):
        write_aside(tmp_path / "note", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["note"]
    with pytest.raises(FileNotFoundError):
        write_aside(tmp_path / "nowhere" / "note", "text")


def test_readers_see_one_whole_writing_whoever_writes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_aside(path, "0" * 10_000)

    def write(digit: str) -> None:
        for _ in range(50):
            write_aside(path, digit * 10_000)

    writers = [threading.Thread(target=write, args=(digit,)) for digit in "123"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert len(text) == 10_000
        assert len(set(text)) == 1
    assert list(tmp_path.iterdir()) == [path]
