"""Speaking to a driver through its run folder."""

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from evolve import EvolveError, Journal
from evolve.control import LOCK_NAME, ask_to_stop, driver_of, forget_stop, requested_stop


def test_a_request_is_there_until_it_is_forgotten(tmp_path: Path) -> None:
    assert requested_stop(tmp_path) is None
    ask_to_stop(tmp_path)
    assert requested_stop(tmp_path) == "gently"
    ask_to_stop(tmp_path, "now")
    assert requested_stop(tmp_path) == "now"
    forget_stop(tmp_path)
    forget_stop(tmp_path)
    assert requested_stop(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"how": "somehow"}'])
def test_a_file_that_someone_made_by_hand_is_a_gentle_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "stop").write_text(text)
    assert requested_stop(tmp_path) == "gently"


def test_a_folder_that_is_not_there_can_not_be_asked(tmp_path: Path) -> None:
    with pytest.raises(EvolveError, match="can't be asked to stop there"):
        ask_to_stop(tmp_path / "nowhere")


def test_a_driver_that_has_just_taken_the_lock_is_waited_for_until_it_says_its_name(tmp_path: Path) -> None:
    with (tmp_path / LOCK_NAME).open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert driver_of(tmp_path) == "an unknown process"
        late = threading.Timer(0.07, lambda: os.pwrite(lock.fileno(), b"7 on here\n", 0))
        late.start()
        assert driver_of(tmp_path) == "7 on here"
        late.join()


def hold(path: Path) -> None:
    with Journal(path):
        time.sleep(60)


def test_the_driver_is_whoever_holds_the_lock_and_its_death_frees_it(tmp_path: Path) -> None:
    assert driver_of(tmp_path) is None
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "journal.jsonl",))
    holder.start()
    deadline = time.monotonic() + 60
    while driver_of(tmp_path) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver_of(tmp_path).startswith(f"{holder.pid} on ")
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    holder.close()
    assert driver_of(tmp_path) is None
    with Journal(tmp_path / "journal.jsonl"):
        assert driver_of(tmp_path).startswith(f"{os.getpid()} on ")
