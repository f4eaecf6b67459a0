"""The loader: mosaic batches per second of one core, from real JPEGs, beside the published order done plainly.

    python -m benchmarks.training [--data ../shared/data/bccd] [--rounds 5] [--size 640]

Plainly: each sample reads its four images, resizes each, pastes them on a canvas of twice the size, warps the whole
canvas, blends with a second mosaic if mixup asks for it, then HSV by tables, flips, planes. It reads each image each
time, as the published default does. Both sides have the same hyperparameters, take turns, and are measured in CPU
seconds of one thread; medians of several rounds, each of one first epoch and three batches of the others.

- first: Beagle by default in its first epoch, when each image is decoded once and kept;
- later: Beagle by default in all later epochs;
- off: Beagle when it keeps nothing (--cache off), and decodes each image each time as the plain one does;
- kept: both with all images decoded in memory before.

    python -m benchmarks.training --sharing

Four processes that load the same images, as four trials of one machine do: what memory they take together.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from dataset import Split, load
from trainer.config import Hyperparameters
from trainer.loader import BatchMaker
from trainer.plan import Draw
from trainer.samples import DetectionSet

BATCH = 16
CASES = {
    "default (scale, translate)": Hyperparameters(),
    "with mixup": Hyperparameters(mixup=1.0),
    "rotate and shear": Hyperparameters(degrees=10, shear=3),
}
TRIALS = 4


class PlainLoader:
    """The published order, one step after the other."""

    def __init__(self, split: Split, size: int, hyp: Hyperparameters, *, keep: bool) -> None:
        self.split, self.size, self.hyp = split, size, hyp
        self.kept: dict[int, np.ndarray] | None = {} if keep else None

    def image(self, index: int) -> np.ndarray:
        """Read and resize."""
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        image = cv2.imread(str(self.split.images[index]))
        ratio = self.size / max(image.shape[:2])
        if ratio != 1:
            wh = round(image.shape[1] * ratio), round(image.shape[0] * ratio)
            image = cv2.resize(image, wh, interpolation=cv2.INTER_LINEAR)
        if self.kept is not None:
            self.kept[index] = image
        return image

    def mosaic(self, rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Four images on a canvas of twice the size, warped."""
        size = self.size
        canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
        x0, y0 = (int(v) for v in rng.uniform(0.5 * size, 1.5 * size, 2))
        boxes = []
        for corner, one in enumerate([index, *rng.integers(len(self.split), size=3).tolist()]):
            image = self.image(one)
            height, width = image.shape[:2]
            x, y = x0 - (0 if corner % 2 else width), y0 - (0 if corner >= 2 else height)
            left, right, top, bottom = (
                max(x, 0),
                min(x + width, 2 * size),
                max(y, 0),
                min(y + height, 2 * size),
            )
            canvas[top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
            rows = self.split.labels[one]
            middle, half = rows[:, 1:3] * (width, height), rows[:, 3:5] * (width, height) / 2
            corners = np.concatenate([middle - half, middle + half], axis=1) + np.array([x, y, x, y])
            boxes.append(np.concatenate([rows[:, :1], corners], axis=1))
        return self.warp(rng, canvas, np.concatenate(boxes))

    def warp(
        self, rng: np.random.Generator, canvas: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The whole canvas through a random perspective, and its boxes."""
        hyp, size = self.hyp, self.size
        labels[:, 1:] = labels[:, 1:].clip(0, 2 * size)
        centre, shear, move = np.eye(3), np.eye(3), np.eye(3)
        centre[:2, 2] = -size
        turn = np.eye(3)
        scale = rng.uniform(1 - hyp.scale, 1 + hyp.scale)
        turn[:2] = cv2.getRotationMatrix2D((0, 0), rng.uniform(-hyp.degrees, hyp.degrees), scale)
        shear[0, 1] = math.tan(math.radians(rng.uniform(-hyp.shear, hyp.shear)))
        shear[1, 0] = math.tan(math.radians(rng.uniform(-hyp.shear, hyp.shear)))
        move[:2, 2] = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * size
        matrix = move @ shear @ turn @ centre
        picture = cv2.warpAffine(canvas, matrix[:2], (size, size), borderValue=(114, 114, 114))
        corners = np.ones((len(labels) * 4, 3))
        corners[:, :2] = labels[:, [1, 2, 3, 4, 1, 4, 3, 2]].reshape(-1, 2)
        moved = (corners @ matrix.T)[:, :2].reshape(-1, 4, 2)
        after = np.concatenate([moved.min(1), moved.max(1)], axis=1).clip(0, size)
        wh, before = after[:, 2:] - after[:, :2], (labels[:, 3:] - labels[:, 1:3]) * scale
        aspect = np.maximum(wh[:, 0] / (wh[:, 1] + 1e-9), wh[:, 1] / (wh[:, 0] + 1e-9))
        keep = (wh > 2).all(1) & (wh.prod(1) / (before.prod(1) + 1e-9) > 0.1) & (aspect < 100)
        return picture, np.concatenate([labels[keep, :1], after[keep]], axis=1)

    def sample(self, rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Mosaic, mixup, colours, flip, planes."""
        picture, labels = self.mosaic(rng, index)
        if rng.random() < self.hyp.mixup:
            other, more = self.mosaic(rng, int(rng.integers(len(self.split))))
            share = rng.beta(32.0, 32.0)
            picture = (picture * share + other * (1 - share)).astype(np.uint8)
            labels = np.concatenate([labels, more])
        factors = 1 + rng.uniform(-1, 1, 3) * (self.hyp.hsv_h, self.hyp.hsv_s, self.hyp.hsv_v)
        planes = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV))
        values = np.arange(256)
        tables = [
            values * factors[0] % 180,
            (values * factors[1]).clip(0, 255),
            (values * factors[2]).clip(0, 255),
        ]
        shifted = [
            cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables, strict=True)
        ]
        picture = cv2.cvtColor(cv2.merge(shifted), cv2.COLOR_HSV2BGR)
        if rng.random() < self.hyp.fliplr:
            picture = np.fliplr(picture)
            labels[:, [1, 3]] = self.size - labels[:, [3, 1]]
        return np.ascontiguousarray(picture.transpose(2, 0, 1)[::-1]), labels

    def batch(self, draws: list[Draw]) -> np.ndarray:
        """Samples laid together."""
        made = [self.sample(np.random.default_rng([1, draw.epoch, draw.index]), draw.index) for draw in draws]
        return np.stack([image for image, _ in made])


def race(
    makers: dict[str, Callable[[list[Draw]], object]], images: int, size: int, batches: int
) -> dict[str, list[float]]:
    """CPU seconds of batches of each, taking turns."""
    spent: dict[str, list[float]] = {name: [] for name in makers}
    rng = np.random.default_rng(0)
    for turn in range(batches):
        draws = [Draw(int(index), turn, (size, size)) for index in rng.integers(images, size=BATCH)]
        for name, make in makers.items():
            start = time.process_time()
            make(draws)
            spent[name].append(time.process_time() - start)
    return spent


def first_epoch(split: Split, size: int, hyp: Hyperparameters, seed: int) -> float:
    """CPU seconds of a batch in the first epoch of a training that keeps its images as it goes."""
    samples = DetectionSet(split, size, hyp, True, cache="ram")
    order = np.random.default_rng(seed).permutation(len(split)).tolist()
    maker, start = BatchMaker(samples), time.process_time()
    for first in range(0, len(order), BATCH):
        maker.make([Draw(index, seed, (size, size)) for index in order[first : first + BATCH]])
    return (time.process_time() - start) / (len(order) / BATCH)


def race_case(split: Split, size: int, hyp: Hyperparameters, rounds: int) -> dict[str, float]:
    """Median CPU seconds of a batch of each; every round has a first epoch and a few batches of all the others."""
    spent: dict[str, list[float]] = {}
    cold, (plain, kept) = (
        DetectionSet(split, size, hyp, True, cache="off"),
        (PlainLoader(split, size, hyp, keep=keep) for keep in (False, True)),
    )
    for index in range(len(split)):
        kept.image(index)
    for turn in range(rounds + 1):
        first = first_epoch(
            split, size, hyp, turn
        )  # alone: another set with the same images would share them
        warm = DetectionSet(split, size, hyp, True, cache="ram")
        for index in range(len(split)):
            warm.images[index]
        makers = {
            "plain": plain.batch,
            "off": BatchMaker(cold).make,
            "plain kept": kept.batch,
            "later": BatchMaker(warm).make,
        }
        found = race(makers, len(split), size, 3) | {"first": [first]}
        del warm, makers
        if turn:  # the first one is not counted
            for name, times in found.items():
                spent.setdefault(name, []).extend(times)
    medians = {name: float(np.median(times)) for name, times in spent.items()}
    return medians | {"kept": medians["later"]}


def race_loaders(split: Split, size: int, rounds: int) -> None:
    cv2.setNumThreads(1)
    print(
        f"{len(split)} images, {size} px, batches of {BATCH}, OpenCV {cv2.__version__}; batches per CPU second, "
        "and times the plain one's"
    )
    beside = {"first": "plain", "later": "plain", "off": "plain", "kept": "plain kept"}
    columns = ("plain", "first", "later", "off", "plain kept", "kept")
    print(f"{'augmentation':<28}" + "".join(f"{word:>16}" for word in columns))
    for name, hyp in CASES.items():
        found = race_case(split, size, hyp, rounds)
        row = ""
        for column in columns:
            ratio = f" ({found[beside[column]] / found[column]:.2f})" if column in beside else ""
            row += f"{1 / found[column]:.2f}{ratio}".rjust(16)
        print(f"{name:<28}{row}")


def proportional_memory() -> dict[str, int]:
    """KiB of this process by kind; pages that others map as well count by the share of each."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def take_trial(source: str, size: int, cache: str, shared: bool, gate: object, answers: object) -> None:
    """One trial's images, all read, and its memory when all trials have read theirs."""
    split = load(source).train
    before = proportional_memory()["Pss"]
    samples = DetectionSet(split, size, Hyperparameters(), True, cache="off" if not shared else cache)
    own = [samples.images[index] for index in range(len(split))]
    total = sum(int(image.astype(np.int64).sum()) for image in own)
    gate.wait()
    answers.put((proportional_memory()["Pss"] - before, total, len(own)))
    gate.wait()


def show_sharing(source: str, size: int) -> None:
    split = load(source).train
    samples = DetectionSet(split, size, Hyperparameters(), True, cache="off")
    once = sum(height * width * 3 for height, width in samples.images.sizes) / 2**20
    print(f"{TRIALS} processes, {len(split)} images at {size} px: {once:.0f} MiB decoded once")
    print(f"{'cache':<28}{'MiB together':>14}{'copies':>10}")
    context = multiprocessing.get_context("spawn")
    for name, cache, shared in (("each its own", "off", False), ("ram", "ram", True), ("disk", "disk", True)):
        gate, answers = context.Barrier(TRIALS), context.Queue()
        arguments = (source, size, cache, shared, gate, answers)
        processes = [context.Process(target=take_trial, args=arguments) for _ in range(TRIALS)]
        for process in processes:
            process.start()
        found = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        if len({total for _, total, _ in found}) != 1:
            raise RuntimeError("the processes have read different images")
        together = sum(kib for kib, _, _ in found) / 1024
        print(f"{name:<28}{together:>14.0f}{together / once:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The loader beside a plain one, or the memory of four trials."
    )
    parser.add_argument("--data", default="../shared/data/bccd")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sharing", action="store_true", help="Show the memory of four processes.")
    options = parser.parse_args()
    if options.sharing:
        show_sharing(options.data, options.size)
    else:
        race_loaders(load(options.data).train, options.size, options.rounds)


if __name__ == "__main__":
    main()
