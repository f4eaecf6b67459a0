"""A place where a stranger stands, and the command as a process there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from beagle.wiring import EvolveOptions, start_run, train_detector
from evolve.journal import Journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.resources import Resources
from evolve.trainable import run_trial

COLOURS = ((40, 40, 230), (60, 210, 60))  # BGR, one per class
HOSTILE = 'raise RuntimeError("the package of the current folder was imported")\n'
# As the installed script does: the current folder is not where its modules come from.
SCRIPT = [sys.executable, "-P", "-c", "from beagle.cli import main; main()"]
PATIENCE_S = 240

Beagle = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def draw(path: Path, rng: np.random.Generator) -> list[str]:
    """An image of 80 x 64 px with a coloured rectangle in each half, and its YOLO label lines."""
    pixels = rng.integers(90, 140, (64, 80, 3), dtype=np.uint8)
    lines = []
    for left in (0, 40):
        w, h, kind = int(rng.integers(12, 36)), int(rng.integers(12, 56)), int(rng.integers(2))
        x, y = left + int(rng.integers(0, 40 - w)), int(rng.integers(0, 64 - h))
        pixels[y : y + h, x : x + w] = COLOURS[kind]
        lines.append(f"{kind} {(x + w / 2) / 80:.6f} {(y + h / 2) / 64:.6f} {w / 80:.6f} {h / 64:.6f}")
    assert cv2.imwrite(str(path), pixels)
    return lines


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, and with packages called `model` and `trainer` that must not be imported."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("model", "trainer"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(HOSTILE)
    rng = np.random.default_rng(11)
    for split, count in (("train", 12), ("val", 6)):
        images, labels = folder / "data/images" / split, folder / "data/labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            lines = draw(images / f"{number:02}.png", rng)
            (labels / f"{number:02}.txt").write_text("\n".join(lines) + "\n")
    (folder / "data/data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, green]\n")
    return folder


@pytest.fixture(scope="module")
def environment(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of the processes: threads that sleep, a cache of their own, and no server of the user's."""
    crashes = tmp_path_factory.mktemp("crashes")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    scripts = str(Path(sys.executable).parent)
    return own | {
        "BEAGLE_CACHE": str(tmp_path_factory.mktemp("cache")),
        "BEAGLE_CRASHES": str(crashes),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PATH": scripts + os.pathsep + own.get("PATH", ""),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture(scope="module")
def start(place: Path, environment: dict[str, str]) -> Start:
    """``start("evolve", ...)``: the command as a process that a test may kill."""

    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SCRIPT, *words],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture(scope="module")
def beagle(start: Start) -> Beagle:
    """``beagle("status", ...)``: the command as a process, to its end, which must be a good one."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        with start(*words) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    return call


def make_data(folder: Path) -> None:
    """Beside the data set of `place`: box shapes alone, and a second set."""
    (folder / "shapes.csv").write_text("w,h\n" + "".join(f"{8 + n % 30},{10 + n % 47}\n" for n in range(200)))
    (folder / "other").symlink_to(folder / "data", target_is_directory=True)


@pytest.fixture(scope="module")
def night(place: Path, environment: dict[str, str]) -> Path:
    """A run of one trial that was really trained, in this process and without Ray."""
    folder = place / "ready" / "night"
    options = EvolveOptions(
        data=str(place / "data"),
        model="yolov5n",
        trials=1,
        ladder=Ladder((1,)),
        batch_size=4,
        image_size=64,
        genes=("lr0", "mosaic"),
        training={"device": "cpu"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAGLE_CACHE", environment["BEAGLE_CACHE"])
        start_run(folder, options, Resources(), lambda _line: None)
        with Journal(folder / "journal.jsonl") as journal:
            ledger = Ledger(folder, journal)
            while (trial := ledger.next_assignment()) is not None:
                number = trial.trial
                outcome = run_trial(
                    trial,
                    train_detector,
                    lambda epoch, row, number=number: ledger.reported(number, epoch, row),
                )
                ledger.ended(number, outcome)
    return folder


@pytest.fixture
def stand(place: Path, night: Path, tmp_path: Path) -> Path:
    """A reader's folder: `data`, `other`, `shapes.csv` and a run called `night`."""
    (tmp_path / "data").symlink_to(place / "data", target_is_directory=True)
    make_data(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/night").symlink_to(night, target_is_directory=True)
    return tmp_path
