"""The command, run in this process in a folder of its own, and a tiny data set to run it on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from beagle.cli import run
from beagle.wiring import EvolveOptions, start_run, train_detector
from evolve.journal import Journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.ray_driver import Resources
from evolve.trainable import run_trial

COLOURS = ((40, 40, 230), (60, 210, 60))  # BGR, one per class


@dataclass(frozen=True)
class Said:
    """What one run of the command came to."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of stderr that name an error."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label cache that is nobody else's."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder, which is the current one: the command writes where it stands."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BEAGLE_CACHE", str(cache))
    monkeypatch.setenv("BEAGLE_CRASHES", str(tmp_path))
    return folder


@pytest.fixture
def beagle(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """``beagle("train", data, ...)``: runs the command with these words."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def refused(beagle: Callable[..., Said]) -> Callable[..., str]:
    """``refused("train", ...)``: checks that the user is told in one line, as the last thing said; the line."""

    def call(*words: object) -> str:
        said = beagle(*words)
        assert said.code == 1, said
        assert len(said.errors) == 1, said.err
        assert said.err.splitlines()[-1] == said.errors[0], said.err
        assert "Traceback" not in said.err
        return said.errors[0]

    return call


@pytest.fixture
def untouched(refused: Callable[..., str], workplace: Path) -> Callable[..., str]:
    """As ``refused``, and checks that the current folder is as it was before."""

    def call(*words: object) -> str:
        before = contents(workplace)
        line = refused(*words)
        assert contents(workplace) == before
        return line

    return call


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder: path to bytes, None for a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def write_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``write_set(train={"a": "0 .5 .5 .2 .2"}, val={...})``: label text by image name; the data.yaml."""

    def write(train: Mapping[str, str], val: Mapping[str, str] | None = None) -> Path:
        root = tmp_path_factory.mktemp("set")
        rng = np.random.default_rng(7)
        for split, texts in {"train": train, "val": train if val is None else val}.items():
            for kind in ("images", "labels"):
                (root / kind / split).mkdir(parents=True)
            for name, text in texts.items():
                pixels = rng.integers(90, 140, (64, 80, 3), dtype=np.uint8)
                paint(pixels, text)
                assert cv2.imwrite(str(root / "images" / split / f"{name}.png"), pixels)
                (root / "labels" / split / f"{name}.txt").write_text(text + "\n")
        data = root / "data.yaml"
        data.write_text("train: images/train\nval: images/val\nnames: [red, green]\n")
        return data

    return write


def paint(pixels: np.ndarray, text: str) -> None:
    """Fill the boxes of YOLO label lines with their classes' colours."""
    height, width = pixels.shape[:2]
    for line in text.splitlines():
        kind, cx, cy, w, h = map(float, line.split())
        left, top = round((cx - w / 2) * width), round((cy - h / 2) * height)
        right, bottom = round((cx + w / 2) * width), round((cy + h / 2) * height)
        pixels[max(top, 0) : bottom, max(left, 0) : right] = COLOURS[int(kind) % 2]


def label_text(rng: np.random.Generator) -> str:
    """Two boxes side by side, each in its half."""
    lines = []
    for half in (0.0, 0.5):
        w, h = rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.7)
        cx, cy = half + rng.uniform(w / 2, 0.5 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        lines.append(f"{rng.integers(2)} {cx:.4f} {cy:.4f} {w:.4f} {h:.4f}")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def tiny(write_set: Callable[..., Path]) -> Path:
    """The data.yaml of 12 images to train on and 6 to judge on, two coloured boxes in each."""
    rng = np.random.default_rng(3)
    texts = {f"{number:02}": label_text(rng) for number in range(18)}
    return write_set(
        {name: texts[name] for name in sorted(texts)[:12]}, {name: texts[name] for name in sorted(texts)[12:]}
    )


@pytest.fixture(scope="session")
def options(tiny: Path) -> EvolveOptions:
    """An evolution of the least detector on the tiny data set."""
    return EvolveOptions(
        data=str(tiny),
        model="yolov5n",
        trials=2,
        ladder=Ladder((2,)),
        batch_size=4,
        image_size=64,
        genes=("lr0", "mosaic"),
        training={"device": "cpu"},
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, options: EvolveOptions, cache: Path) -> Path:
    """A run folder with one trial that was really trained, and one that was asked and never ended. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAGLE_CACHE", str(cache))
        start_run(folder, options, Resources(), lambda _line: None)
        with Journal(folder / "journal.jsonl") as journal:
            ledger = Ledger(folder, journal)
            first = ledger.next_assignment()
            assert first is not None
            outcome = run_trial(first, train_detector, lambda epoch, row: ledger.reported(0, epoch, row))
            ledger.ended(0, outcome)
            assert ledger.next_assignment() is not None
    return folder
