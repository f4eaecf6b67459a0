"""How fast is suppression in torch, beside OpenCV's and the plain greedy loop, on this machine, in one run?

First `model.nms.nms` beside the usual loop: take the best box, compute its IoU with all that are left at once, drop
what overlaps, go on. Both must give the same boxes.

Then a batch as a large detector gives it: 32 images, 30,000 boxes each, 80 classes. `cv2.dnn.NMSBoxesBatched` takes
one image at a time, and scores that are chosen already; what is before it (best class of each box, threshold,
corners) is done in numpy for it and timed with it. Scenes: `detector`: 40 objects an image, each predicted many times
with its class; `classes`: the same with any class for any prediction; `crowd`: one box in ten is over the confidence,
anywhere, of any class. Both must keep as many boxes. Times are CPU times, so that busy neighbours don't count.

Run: `python -m benchmarks.nms_speed [--threads 1] [--batch 32]`.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.boxes import box_iou
from model.nms import nms, non_max_suppression
from model.suppression import NmsKind, Suppression

IOU = 0.45
CONFIDENCE = 0.25
PREDICTIONS, CLASSES = 30_000, 80


def greedy_loop(xyxy: Tensor, scores: Tensor, iou: float) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        kept.append(order[0])
        order = order[1:][box_iou(xyxy[order[:1]], xyxy[order[1:]])[0] <= iou]
    return torch.stack(kept)


def scattered(rng: np.random.Generator, n: int) -> Tensor:
    """Boxes of 10 to 110 px anywhere on 640 px: most of them stay, the hard case."""
    centre, wh = rng.random((n, 2)) * 640, rng.random((n, 2)) * 100 + 10
    return torch.tensor(np.hstack((centre - wh / 2, centre + wh / 2)), dtype=torch.float32)


def clustered(rng: np.random.Generator, n: int) -> Tensor:
    """Forty objects, each predicted many times: what a detector gives."""
    return around(rng, rng.integers(0, 40, n))


def around(rng: np.random.Generator, which: NDArray[np.int64]) -> Tensor:
    """A box around the object of each number, of forty."""
    n = len(which)
    centre = (rng.random((40, 2)) * 600)[which] + rng.normal(size=(n, 2)) * 4
    wh = 60 + np.abs(rng.normal(size=(n, 2))) * 5
    return torch.tensor(np.hstack((centre - wh / 2, centre + wh / 2)), dtype=torch.float32)


def decoded_batch(rng: np.random.Generator, scene: str, images: int) -> Tensor:
    """(images, PREDICTIONS, 5 + CLASSES) as a detector gives them."""
    decoded = torch.empty(images, PREDICTIONS, 5 + CLASSES)
    for image in decoded:
        which = rng.integers(0, 40, PREDICTIONS)
        corners = scattered(rng, PREDICTIONS) if scene == "crowd" else around(rng, which)
        image[:, :2], image[:, 2:4] = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        share = 0.1 if scene == "crowd" else 0.02
        sure = rng.random(PREDICTIONS) < share
        image[:, 4] = torch.from_numpy(
            np.where(sure, rng.uniform(0.5, 1, PREDICTIONS), 0.01).astype(np.float32)
        )
        image[:, 5:] = torch.from_numpy(rng.random((PREDICTIONS, CLASSES), dtype=np.float32) * 0.1)
        classes = (
            rng.integers(0, CLASSES, 40)[which]
            if scene == "detector"
            else rng.integers(0, CLASSES, PREDICTIONS)
        )
        image[torch.arange(PREDICTIONS), 5 + torch.from_numpy(classes)] = 0.95
    return decoded


def opencv(decoded: Tensor) -> int:
    """Boxes that OpenCV keeps, over all images."""
    kept = 0
    for image in decoded.numpy():
        rows = image[image[:, 4] > CONFIDENCE]
        scores = rows[:, 5:] * rows[:, 4:5]
        classes = scores.argmax(1)
        corner = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]), 1).astype(np.float64)
        best = scores[np.arange(len(rows)), classes]
        kept += len(cv2.dnn.NMSBoxesBatched(corner, best, classes, CONFIDENCE, IOU))
    return kept


def best_ms(call: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return min(seconds) * 1e3


def compare_loop(rng: np.random.Generator, repeats: int) -> None:
    print("| boxes | scene | kept | loop, ms | ours, ms | ratio |")
    print("|---:|---|---:|---:|---:|---:|")
    for name, scene in (("clustered", clustered), ("scattered", scattered)):
        for n in (100, 500, 2000, 8000):
            xyxy, scores = scene(rng, n), torch.tensor(rng.random(n), dtype=torch.float32)
            ours, theirs = nms(xyxy, scores, IOU), greedy_loop(xyxy, scores, IOU)
            if not torch.equal(ours, theirs):
                raise SystemExit(f"the results differ for {n} {name} boxes: ours is not exact")
            slow = best_ms(lambda x=xyxy, s=scores: greedy_loop(x, s, IOU), repeats)
            fast = best_ms(lambda x=xyxy, s=scores: nms(x, s, IOU), repeats)
            print(f"| {n} | {name} | {len(ours)} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |", flush=True)


def compare_opencv(rng: np.random.Generator, images: int, repeats: int) -> None:
    print(f"\n{images} images of {PREDICTIONS:,} boxes and {CLASSES} classes, confidence {CONFIDENCE}\n")
    print(
        "| scene | over the confidence, an image | kept | OpenCV, ms | ours, ms | ratio | diou | soft | memory, MB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for scene in ("detector", "classes", "crowd"):
        decoded = decoded_batch(rng, scene, images)
        over = float((decoded[..., 4] > CONFIDENCE).sum() / images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def ours(kind: NmsKind = "greedy", decoded: Tensor = decoded) -> list[Tensor]:
            most = 300 if kind == "soft" else PREDICTIONS
            return non_max_suppression(
                decoded, Suppression(confidence=CONFIDENCE, iou=IOU, kind=kind, max_detections=most)
            )

        kept = sum(map(len, ours()))
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        theirs = opencv(decoded)
        if abs(kept - theirs) > 0.001 * theirs:  # theirs moves boxes, which costs their last bits
            raise SystemExit(f"{scene}: ours keeps {kept} boxes, OpenCV {theirs}")
        slow, fast = best_ms(lambda d=decoded: opencv(d), repeats), best_ms(ours, repeats)
        diou = best_ms(lambda: ours("diou"), repeats)
        soft = best_ms(lambda: ours("soft"), 1)
        cells = [scene, *(f"{value:.0f}" for value in (over, kept, slow, fast))]
        cells += [f"{slow / fast:.1f}", *(f"{value:.0f}" for value in (diou, soft, memory))]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    rng = np.random.default_rng(0)
    print(f"NMS at IoU {IOU}, best of {options.repeats}, {options.threads} thread(s)\n")
    compare_loop(rng, options.repeats)
    compare_opencv(rng, options.batch, options.repeats)


if __name__ == "__main__":
    main()
