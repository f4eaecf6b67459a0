"""Where runs are kept, and what is not written over."""

from pathlib import Path

import pytest

from beagle.folders import (
    CommandError,
    absolute_source,
    check_new_folder,
    find_run,
    unused_folder,
    write_bytes,
)


def test_a_path_that_exists_becomes_absolute_and_a_name_stays(workplace: Path) -> None:
    (workplace / "data.yaml").touch()
    assert absolute_source("data.yaml") == str(workplace / "data.yaml")
    assert absolute_source("digits") == "digits"
    assert absolute_source("absent.yaml") == "absent.yaml"


def test_a_folder_of_the_user_s_with_a_built_in_name_is_the_user_s(workplace: Path) -> None:
    (workplace / "digits").mkdir()
    assert absolute_source("digits") == str(workplace / "digits")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.yaml").touch()
    assert absolute_source("~/data.yaml") == str(tmp_path / "data.yaml")


def test_a_new_or_empty_folder_may_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_new_folder(tmp_path / "new")
    check_new_folder(tmp_path / "empty")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="exists already: choose another folder"):
        check_new_folder(tmp_path)
    with pytest.raises(CommandError, match="file is a file: choose another folder"):
        check_new_folder(tmp_path / "file")


def test_unused_folders_are_counted_on(tmp_path: Path) -> None:
    assert unused_folder(tmp_path, "evolve") == tmp_path / "evolve"
    (tmp_path / "evolve").mkdir()
    (tmp_path / "evolve-2").touch()
    assert unused_folder(tmp_path, "evolve") == tmp_path / "evolve-3"


def test_a_run_is_found_by_path_and_by_name(workplace: Path) -> None:
    run = workplace / "runs" / "small"
    run.mkdir(parents=True)
    (run / "journal.jsonl").touch()
    assert find_run(Path("small")) == find_run(Path("runs/small")) == find_run(run) == run.resolve()


def test_a_path_goes_before_a_name(workplace: Path) -> None:
    for folder in (workplace / "small", workplace / "runs" / "small"):
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").touch()
    assert find_run(Path("small")) == (workplace / "small").resolve()


def test_a_run_that_is_not_there_is_answered_with_those_that_are(workplace: Path) -> None:
    with pytest.raises(CommandError, match="there are no runs here yet"):
        find_run(Path("small"))
    for name in ("b", "a"):
        (workplace / "runs" / name).mkdir(parents=True)
        (workplace / "runs" / name / "journal.jsonl").touch()
    with pytest.raises(CommandError, match=r"small is no run folder.*\(runs are: a, b\)"):
        find_run(Path("small"))


def test_text_is_written_whole_and_replaces_what_was_there(workplace: Path) -> None:
    path = workplace / "a.yaml"
    write_bytes(path, b"eins\n")
    write_bytes(path, "zwei – drei\n".encode())
    assert path.read_text(encoding="utf-8") == "zwei – drei\n"
    assert list(workplace.iterdir()) == [path]


def test_text_that_can_not_be_written_leaves_nothing(workplace: Path) -> None:
    (workplace / "folder").mkdir()
    with pytest.raises(CommandError, match="folder can't be written: Is a directory"):
        write_bytes(workplace / "folder", b"text")
    assert list(workplace.iterdir()) == [workplace / "folder"]
    with pytest.raises(CommandError, match=r"a\.yaml can't be written: No such file or directory"):
        write_bytes(workplace / "missing" / "a.yaml", b"text")
