"""A disk that is full: one clear line, exit code 1, and no file that is half there.

The disk is a tmpfs of this test's own, which takes a system that lets us mount one.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evolve.journal import fold, read_journal

pytestmark = pytest.mark.ray

LIGHT = ("--model", "yolov5n", "--image-size", "64", "--batch-size", "6", "--epochs", "1", "--device", "cpu")
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of 48 MiB, or a skip that says why there is none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("no full disk to test with: mounting a tmpfs takes root and the program mount")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no full disk to test with: mounting a tmpfs is refused ({made.stderr.strip()})")
    try:
        yield folder
    finally:
        # Lazily, so that a file that is still open leaves no mount behind; tests look for such files themselves.
        subprocess.run([umount, "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Write a file that leaves so many bytes free; the file."""
    filler = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with filler.open("wb") as file:
        for _ in range((free - leave) // 4096):
            file.write(bytes(4096))
    return filler


def open_files_in(folder: Path) -> list[str]:
    """Files under a folder that this process holds open."""
    links = list(Path("/proc/self/fd").iterdir())
    targets = [str(link.readlink()) for link in links if link.is_symlink()]  # the listing itself is gone
    return [target for target in targets if target.startswith(f"{folder}/")]


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"filler"}


def test_a_training_that_finds_no_room_for_its_checkpoint_is_resumed_when_there_is(
    small_disk: Path, refused: Callable[..., str], beagle: Callable, tiny: Path
) -> None:
    filler = fill(small_disk, leave=MIB)  # enough for its settings
    out = small_disk / "training"

    line = refused("train", tiny, *LIGHT, "--out", out)

    assert "the disk is full" in line
    assert str(out) in line
    assert {"config.json", "hyp.yaml"} <= files_in(out)
    assert not any(name.startswith("weights/") for name in files_in(out))
    assert json.loads((out / "config.json").read_text())["epochs"] == 1
    filler.unlink()
    again = beagle("train", tiny, *LIGHT, "--out", out, "--resume")
    assert again.code == 0, again
    assert {"weights/best.pt", "weights/last.pt"} <= files_in(out)


def test_a_training_onto_a_full_disk_leaves_no_file(
    small_disk: Path, refused: Callable[..., str], tiny: Path
) -> None:
    fill(small_disk)
    assert "the disk is full" in refused("train", tiny, *LIGHT, "--out", small_disk / "training")
    assert files_in(small_disk) == set()


def test_an_evolution_onto_a_full_disk_leaves_no_folder_in_the_way_of_the_next(
    small_disk: Path, refused: Callable[..., str], tiny: Path
) -> None:
    fill(small_disk)
    line = refused("evolve", tiny, *LIGHT, "--trials", "1", "--out", small_disk / "run")
    assert "No space left on device" in line
    assert not (small_disk / "run").exists()


def test_an_evolution_onto_a_full_disk_leaves_no_file_open(
    small_disk: Path, refused: Callable[..., str], tiny: Path
) -> None:
    fill(small_disk)
    refused("evolve", tiny, *LIGHT, "--trials", "1", "--out", small_disk / "run")
    assert open_files_in(small_disk) == []


def test_an_export_onto_a_full_disk_leaves_nothing(
    small_disk: Path, refused: Callable[..., str], finished_run: Path
) -> None:
    fill(small_disk, leave=MIB)  # its texts have room, its weights have none
    line = refused("export", finished_run, "--to", small_disk / "production")
    assert "cannot be written (No space left on device)" in line
    assert list(small_disk.iterdir()) == [small_disk / "filler"]


def test_a_report_onto_a_full_disk_leaves_nothing(
    small_disk: Path, refused: Callable[..., str], finished_run: Path
) -> None:
    fill(small_disk)
    assert "No space left on device" in refused("report", finished_run, "--out", small_disk / "page.html")
    assert list(small_disk.iterdir()) == [small_disk / "filler"]


@pytest.mark.parametrize(
    "flag",
    ["--out", "--plot"],
)
def test_anchors_onto_a_full_disk_leave_nothing(
    flag: str, small_disk: Path, refused: Callable[..., str], tiny: Path
) -> None:
    fill(small_disk)
    target = small_disk / ("a.yaml" if flag == "--out" else "a.png")
    line = refused("anchors", "fit", tiny, "--model", "yolov5n", "--image-size", "64", flag, target)
    assert "No space left on device" in line or "no space left on device" in line
    assert str(target) in line
    assert list(small_disk.iterdir()) == [small_disk / "filler"]


@pytest.mark.slow
def test_an_evolution_whose_disk_fills_up_stops_with_one_line_and_goes_on_when_there_is_room(
    small_disk: Path, tiny: Path, cache: Path
) -> None:
    filler = fill(
        small_disk, leave=6 * MIB
    )  # room for the journal and MLflow's tables, not for two checkpoints
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "BEAGLE_CACHE": str(cache)}

    def beagle(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "from beagle.cli import main; main()", *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | quiet, timeout=300, check=False
        )

    resources = ("--trials", "1")
    answer = beagle("evolve", tiny, *LIGHT, *resources, "--out", small_disk / "run")
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "the disk is full" in errors[0] or "No space left on device" in errors[0]
    assert not list(small_disk.rglob("*.part"))
    state = fold(read_journal(small_disk / "run" / "journal.jsonl"))
    assert not state.failed
    assert state.running

    filler.unlink()
    answer = beagle("resume", small_disk / "run")
    assert answer.returncode == 0, answer.stderr
    assert len(fold(read_journal(small_disk / "run" / "journal.jsonl")).finished) == 1
