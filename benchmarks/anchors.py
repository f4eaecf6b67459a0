"""Speed and memory of `anchors.fit` beside the published refinement and a Euclidean k-means, on the same shapes.

    python -m benchmarks.anchors [--boxes 1e3 1e4 1e5 8.6e5 1e7] [--methods fit published ...]

Shapes are drawn from a seeded mixture of log-normals much like COCO's, cut to 2..640 px. Each line is a process of
its own; seconds are CPU seconds of one thread, so that a busy machine does not tell in them, and memory is the
highest resident set of the process, interpreter, libraries and the shapes included. The published refinement judges
each child on whole arrays, as the programs that people use do; the line "sliced" is the same loop on our own metrics,
which stay in cache. Where its 1,000 generations would take too long, a few are timed and the rest is reckoned (marked
~); then its fitness is that of a run on 100,000 of the shapes, judged on all.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anchors import fit, metrics
from benchmarks.published_refinement import GENERATIONS, euclidean_kmeans, refine

ANCHORS, THRESHOLD = 9, 4.0
SIZES = ("1e3", "1e4", "1e5", "8.6e5", "1e7")
METHODS = ("published", "sliced", "kmeans", "fit")
WHOLE = 200_000  # boxes up to which all generations are run
TIMED = 5  # generations, above
SAMPLE = 100_000

# Of each crowd: share, mean of the logarithms of width and height, their deviation, and how they go together.
CROWDS = (
    (0.35, (2.9, 3.0), 0.75, 0.80),
    (0.30, (3.9, 4.1), 0.70, 0.70),
    (0.20, (4.9, 4.8), 0.60, 0.60),
    (0.15, (5.6, 5.5), 0.45, 0.40),
)


def draw_shapes(boxes: int, seed: int = 0) -> NDArray[np.float64]:
    """COCO-like shapes, (boxes, 2) px."""
    rng = np.random.default_rng(seed)
    wh = np.empty((boxes, 2))
    ends = np.round(np.cumsum([crowd[0] for crowd in CROWDS]) * boxes).astype(int)
    begin = 0
    for end, (_, mean, deviation, together) in zip(ends, CROWDS, strict=True):
        part = wh[begin:end]
        rng.standard_normal(out=part)
        part[:, 1] *= np.sqrt(1 - together**2)
        part[:, 1] += together * part[:, 0]
        part *= deviation
        part += mean
        begin = end
    np.exp(wh, out=wh)
    return np.clip(wh, 2.0, 640.0, out=wh)


def measure(method: str, boxes: int) -> dict[str, Any]:
    """Time one method: what it took, and what its anchors are worth."""
    wh = draw_shapes(boxes)
    rng, reckoned = np.random.default_rng(0), False
    began = time.process_time()
    if method == "fit":
        anchors = fit(wh, threshold=THRESHOLD).anchors
        seconds = time.process_time() - began
    elif method == "kmeans":
        anchors = euclidean_kmeans(wh, ANCHORS, rng, passes=1)
        seconds = time.process_time() - began
    else:
        anchors, seconds, reckoned = _published(wh, rng, plain=method == "published")
    figures = metrics.evaluate(wh, anchors, THRESHOLD)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "reckoned": reckoned,
        "fitness": figures.fitness,
        "bpr": figures.bpr,
        "mb": peak,
    }


def _published(
    wh: NDArray[np.float64], rng: np.random.Generator, *, plain: bool
) -> tuple[NDArray[np.float64], float, bool]:
    began = time.process_time()
    few = wh if len(wh) <= WHOLE else rng.choice(wh, SAMPLE, replace=False)
    first = euclidean_kmeans(few, ANCHORS, rng)
    if len(wh) <= WHOLE:
        anchors = refine(wh, first, rng, THRESHOLD, plain=plain)
        return anchors, time.process_time() - began, False
    began = time.process_time()
    refine(wh, first, np.random.default_rng(0), THRESHOLD, TIMED - 1, plain=plain)  # the start is judged too
    seconds = (time.process_time() - began) * GENERATIONS / TIMED
    return refine(few, first, rng, THRESHOLD), seconds, True


def run_apart(method: str, boxes: int) -> dict[str, Any]:
    """`measure` in a process of its own, with one thread."""
    command = [sys.executable, "-m", "benchmarks.anchors", "--one", method, "--boxes", str(boxes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", nargs="*", default=SIZES)
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, round(float(options.boxes[0])))))
        return
    print(f"{ANCHORS} anchors, threshold {THRESHOLD:g}")
    print(
        f"{'boxes':>10s} {'method':10s} {'CPU s':>10s} {'of fit':>8s} {'fitness':>8s} {'BPR':>7s} {'peak MB':>8s}"
    )
    for boxes in (round(float(size)) for size in options.boxes):
        found = {method: run_apart(method, boxes) for method in reversed(options.methods)}
        for method in options.methods:
            one = found[method]
            times = f"{one['seconds'] / found['fit']['seconds']:.1f}" if "fit" in found else "-"
            shown = f"{'~' if one['reckoned'] else ''}{one['seconds']:.2f}"
            print(
                f"{boxes:10d} {method:10s} {shown:>10s} {times:>8s} {one['fitness']:8.4f} {one['bpr']:7.4f} "
                f"{one['mb']:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
