"""How much faster is `model.boxes.nms` than the plain greedy loop, on this machine, in one run?

Both give the same boxes (the script stops if they don't). The loop is the usual one: take the best box, compute its
IoU with all that are left at once, drop what overlaps, go on. Run: `python -m benchmarks.nms_speed [--threads 1]`.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.boxes import box_iou, nms

IOU = 0.45


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
    centre = (rng.random((40, 2)) * 600)[rng.integers(0, 40, n)] + rng.normal(size=(n, 2)) * 4
    wh = 60 + np.abs(rng.normal(size=(n, 2))) * 5
    return torch.tensor(np.hstack((centre - wh / 2, centre + wh / 2)), dtype=torch.float32)


def best_ms(call: Callable[[], Tensor], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    print(f"NMS at IoU {IOU}, best of {options.repeats}, {options.threads} thread(s)\n")
    print("| boxes | scene | kept | loop, ms | ours, ms | ratio |")
    print("|---:|---|---:|---:|---:|---:|")
    for name, scene in (("clustered", clustered), ("scattered", scattered)):
        for n in (100, 500, 2000, 8000):
            xyxy, scores = scene(rng, n), torch.tensor(rng.random(n), dtype=torch.float32)
            ours, theirs = nms(xyxy, scores, IOU), greedy_loop(xyxy, scores, IOU)
            if not torch.equal(ours, theirs):
                raise SystemExit(f"the results differ for {n} {name} boxes: ours is not exact")
            slow = best_ms(lambda x=xyxy, s=scores: greedy_loop(x, s, IOU), options.repeats)
            fast = best_ms(lambda x=xyxy, s=scores: nms(x, s, IOU), options.repeats)
            print(f"| {n} | {name} | {len(ours)} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |")


if __name__ == "__main__":
    main()
