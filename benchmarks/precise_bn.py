"""How well a short training ranks like a long one, with batch norm's statistics followed and estimated anew.

    python -m benchmarks.precise_bn [--count 30] [--epochs 24] [--processes 2]

So many configurations of the genes of `benchmarks.record_digits` are trained on `digits` for so many epochs, each
twice: once evaluated with the statistics that the training followed, once with those of `precise_bn` batches. Both
have the same weights after each epoch. The table gives Spearman's rank correlation between the fitness after an epoch
and the mean of the last three epochs of both.
"""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc, spearmanr

from benchmarks.record_digits import SPACE, training

BATCHES = 8
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24)


def points(count: int) -> NDArray[np.float64]:
    """Configurations (count, D), encoded: the start, and by turns one from its surroundings and one from anywhere."""
    start = SPACE.encode(SPACE.start)
    drawn = qmc.Sobol(len(SPACE), rng=np.random.default_rng(6)).random_base2((count - 1).bit_length())[:count]
    near = np.clip(start + 0.9 * (drawn - 0.5), 0, 1)
    mixed = np.where(np.arange(count)[:, None] % 2 == 1, near, drawn)
    mixed[0] = start
    return mixed


def fitnesses(point: NDArray[np.float64], epochs: int) -> list[list[float]]:
    """Fitness after each epoch, of one configuration, followed and estimated anew."""
    from trainer import train

    curves = []
    for batches in (0, BATCHES):
        with tempfile.TemporaryDirectory() as place:
            config = training(SPACE.decode(point), 0, Path(place) / "training", epochs, precise_bn=batches)
            curve = [row["fitness"] for row in train(config).history]
            curves.append(curve + [0.0] * (epochs - len(curve)))  # one that diverged
    return curves


def table(curves: NDArray[np.float64]) -> Iterator[str]:
    """Markdown, line by line, of (configurations, 2, epochs)."""
    final = curves[:, :, -3:].mean(axis=(1, 2))
    yield "| epoch | followed: rank agreement | mean fitness | estimated anew: rank agreement | mean fitness |"
    yield "|---|---|---|---|---|"
    for epoch in SHOWN:
        if epoch <= curves.shape[2]:
            told = [
                f"{spearmanr(curves[:, way, epoch - 1], final).statistic:.2f} | "
                f"{curves[:, way, epoch - 1].mean():.4f}"
                for way in (0, 1)
            ]
            yield f"| {epoch} | {' | '.join(told)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        curves = list(pool.map(partial(fitnesses, epochs=options.epochs), points(options.count)))
    print("\n".join(table(np.array(curves))))


if __name__ == "__main__":
    main()
