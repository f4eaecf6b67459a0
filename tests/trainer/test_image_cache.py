"""Caches of images: one copy for all processes, nothing left behind, and never a wrong px."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from dataset import Split
from trainer import shared_file
from trainer.image_cache import DiskCache, MemoryCache, NoCache, build_cache, content_key, free_memory
from trainer.images import ScaledImages

SHAPES = [(2, 2), (3, 4), (1, 1)]
KEY = "0123456789abcdef" * 2
linux = pytest.mark.skipif(sys.platform != "linux", reason="shared files are mapped on Linux")


def pictures():
    return [np.full((*shape, 3), shade, np.uint8) for shade, shape in enumerate(SHAPES, 1)]


@pytest.fixture
def own_memory(tmp_path, monkeypatch):
    """A folder of this test's in place of the machine's shared memory; gives where files will lie."""
    monkeypatch.setattr(shared_file, "_SHARED_MEMORY", tmp_path)
    return tmp_path / f"beagle-{os.getuid()}"


@pytest.fixture
def split(tmp_path):
    rng = np.random.default_rng(8)
    sizes = np.array([(96, 72), (128, 80), (40, 64)], np.int32)
    paths = tuple(tmp_path / f"{number:02}.png" for number in range(3))
    for path, (width, height) in zip(paths, sizes, strict=True):
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return Split("train", paths, sizes, (np.zeros((0, 5), np.float32),) * 3)


@pytest.mark.parametrize("key", [None, KEY])
class TestMemory:
    def test_as_many_images_as_fit_have_a_place(self, own_memory, key):
        cache = MemoryCache(SHAPES, 12 + 36 + 2, key)
        assert cache.places == 2
        for index, image in enumerate(pictures()):
            assert cache.get(index) is None
            cache.put(index, image)
        assert np.array_equal(cache.get(0), pictures()[0])
        assert np.array_equal(cache.get(1), pictures()[1])
        assert cache.get(2) is None
        assert cache.notes() == ["2 of 3 images fit into memory; the others are read each time"]

    def test_a_cached_image_cannot_be_edited(self, own_memory, key):
        cache = MemoryCache([(2, 2)], 100, key)
        cache.put(0, np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            cache.get(0)[:] = 1
        assert cache.notes() == []

    def test_an_empty_cache_holds_nothing(self, own_memory, key):
        assert MemoryCache([], 100, key).places == 0


@linux
class TestSharing:
    def test_what_one_has_read_the_other_has(self, own_memory):
        one, other = MemoryCache(SHAPES, 1000, KEY), MemoryCache(SHAPES, 1000, KEY)
        one.put(1, pictures()[1])
        assert np.array_equal(other.get(1), pictures()[1])
        assert other.get(0) is None

    def test_what_is_there_already_costs_no_budget_of_a_newcomer(self, own_memory):
        one = MemoryCache(SHAPES, 1000, KEY)
        one.put(0, pictures()[0])
        one.put(1, pictures()[1])
        assert MemoryCache(SHAPES, 3, KEY).places == 3
        assert MemoryCache(SHAPES, 2, KEY).places == 2

    def test_other_contents_are_another_file(self, own_memory):
        one, other = MemoryCache(SHAPES, 1000, KEY), MemoryCache(SHAPES, 1000, KEY[::-1])
        one.put(0, pictures()[0])
        assert other.get(0) is None

    def test_who_leaves_last_deletes_the_file(self, own_memory):
        one, other = MemoryCache(SHAPES, 1000, KEY), MemoryCache(SHAPES, 1000, KEY)
        assert [path.name for path in own_memory.iterdir()] == [KEY]
        del one
        assert [path.name for path in own_memory.iterdir()] == [KEY]
        del other
        assert list(own_memory.iterdir()) == []

    def test_a_forked_worker_that_ends_deletes_nothing(self, own_memory):
        cache = MemoryCache(SHAPES, 1000, KEY)
        worker = multiprocessing.get_context("fork").Process(target=lambda: cache.put(2, pictures()[2]))
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0
        assert np.array_equal(cache.get(2), pictures()[2])
        assert (own_memory / KEY).exists()

    def test_what_a_killed_process_left_goes_when_the_next_one_comes(self, own_memory, tmp_path):
        code = (
            "import sys, time; from pathlib import Path; from trainer import shared_file;"
            f"shared_file._SHARED_MEMORY = Path({str(tmp_path)!r});"
            "from trainer.image_cache import MemoryCache;"
            f"cache = MemoryCache([(2, 2)], 100, {KEY!r}); print('up', flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"up\n"
            neighbour = MemoryCache(SHAPES, 1000, KEY[::-1])
            assert (own_memory / KEY).exists()  # in use
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        assert (own_memory / KEY).exists()
        last = MemoryCache(SHAPES, 1000, KEY[::-1])
        assert not (own_memory / KEY).exists()
        assert (own_memory / KEY[::-1]).exists()
        assert neighbour.places == last.places == 3

    def test_files_that_are_not_ours_are_left_alone(self, own_memory):
        own_memory.mkdir()
        (own_memory / "letters").write_text("keep")
        assert MemoryCache(SHAPES, 1000, KEY).places == 3
        assert (own_memory / "letters").read_text() == "keep"

    def test_a_link_in_place_of_our_folder_is_not_followed(self, own_memory, tmp_path, monkeypatch):
        monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
        (tmp_path / "elsewhere").mkdir()
        own_memory.symlink_to(tmp_path / "elsewhere")
        cache = MemoryCache(SHAPES, 1000, KEY)
        cache.put(0, pictures()[0])
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert len(list((tmp_path / "cache" / "shared").rglob(KEY))) == 1

    def test_without_any_room_for_files_processes_keep_their_own(self, own_memory, monkeypatch):
        monkeypatch.setattr(shared_file.shutil, "disk_usage", lambda _: _Full())
        one, other = MemoryCache(SHAPES, 1000, KEY), MemoryCache(SHAPES, 1000, KEY)
        one.put(0, pictures()[0])
        assert np.array_equal(one.get(0), pictures()[0])
        assert other.get(0) is None

    def test_a_file_system_that_fills_up_keeps_no_more_and_ends_nothing(self, own_memory, monkeypatch):
        cache = MemoryCache(SHAPES, 1000, KEY)
        cache.put(0, pictures()[0])

        write, room = os.pwrite, [20]  # bytes: the next image is begun and can't be ended

        def full(file, data, place):
            if not room[0]:
                raise OSError(28, "No space left on device")
            done = write(file, data[: room[0]], place)
            room[0] -= done
            return done

        monkeypatch.setattr(os, "pwrite", full)
        cache.put(1, pictures()[1])
        assert cache.get(1) is None
        assert np.array_equal(cache.get(0), pictures()[0])
        assert cache.notes() == ["1 of 3 images fit into memory; the others are read each time"]

    def test_a_file_that_is_deleted_while_it_is_opened_is_made_again(self, own_memory, monkeypatch):
        lock, deleted = fcntl.flock, []

        def delete_then_lock(file, how):
            if how == fcntl.LOCK_SH and not deleted:
                deleted.append((own_memory / KEY).unlink())
            lock(file, how)

        monkeypatch.setattr(fcntl, "flock", delete_then_lock)
        cache = MemoryCache(SHAPES, 1000, KEY)
        assert deleted
        assert MemoryCache(SHAPES, 1000, KEY).get(0) is None
        cache.put(0, pictures()[0])
        assert np.array_equal(MemoryCache(SHAPES, 1000, KEY).get(0), pictures()[0])


class _Full:
    free = 0


@linux
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_processes_that_start_together_see_right_images_only(kind, split, own_memory, tmp_path, monkeypatch):
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    expected = ScaledImages(split, 64, smooth=False, cache="off")
    right = [expected[index] for index in range(3)]
    start = time.time() + 0.5
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def work():
        time.sleep(max(start - time.time(), 0))
        images = ScaledImages(split, 64, smooth=False, cache=kind)
        results.put(all(np.array_equal(images[i], right[i]) for _ in range(20) for i in range(3)))

    processes = [context.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=120) for _ in processes] == [True] * 4
    for process in processes:
        process.join(60)


class TestDisk:
    def test_it_outlives_who_wrote_it(self, tmp_path):
        DiskCache(tmp_path / "images", SHAPES).put(1, pictures()[1])
        cache = DiskCache(tmp_path / "images", SHAPES)
        assert np.array_equal(cache.get(1), pictures()[1])
        assert cache.get(0) is None
        assert not [path for path in (tmp_path / "images").rglob("*") if path.name.startswith(".")]

    @pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"not a picture"])
    def test_a_damaged_file_is_made_again(self, tmp_path, damage):
        cache = DiskCache(tmp_path / "images", SHAPES)
        cache.put(1, pictures()[1])
        (path,) = (tmp_path / "images").rglob("*.npy")
        path.write_bytes(damage)
        assert cache.get(1) is None
        cache.put(1, pictures()[1])
        assert np.array_equal(cache.get(1), pictures()[1])

    def test_a_file_of_another_shape_is_not_taken(self, tmp_path):
        DiskCache(tmp_path / "images", [(5, 5)] * 3).put(1, np.zeros((5, 5, 3), np.uint8))
        assert DiskCache(tmp_path / "images", SHAPES).get(1) is None

    def test_a_folder_that_cannot_be_written_costs_time_and_says_so_once(self, tmp_path, caplog):
        (tmp_path / "images").write_text("a file")
        cache = DiskCache(tmp_path / "images", SHAPES)
        cache.put(0, pictures()[0])
        cache.put(1, pictures()[1])
        assert cache.get(0) is None
        assert len(caplog.records) == 1
        assert "keeps no more images" in cache.notes()[0]


class TestKey:
    def test_it_follows_what_images_are_and_how_they_are_scaled(self, split):
        key = content_key(split, SHAPES, "linear")
        assert content_key(split, SHAPES, "linear") == key
        assert content_key(split, SHAPES, "smooth") != key
        assert content_key(split, SHAPES[::-1], "linear") != key
        os.utime(split.images[0], (1, 1))
        assert content_key(split, SHAPES, "linear") != key

    def test_a_missing_image_has_a_key_too(self, split):
        key = content_key(split, SHAPES, "linear")
        split.images[0].unlink()
        assert content_key(split, SHAPES, "linear") != key


def test_off_keeps_nothing(split):
    cache = build_cache("off", split, SHAPES, "linear")
    assert isinstance(cache, NoCache)
    cache.put(0, pictures()[0])
    assert cache.get(0) is None
    assert cache.notes() == []


def test_free_memory_is_some():
    assert free_memory() > 2**20
