"""How well a short training ranks like a long one, with and without what makes an evaluation steadier.

    python -m benchmarks.rank_agreement [--vary precise_bn|ema_share] [--count 30] [--epochs 24] [--processes 2]
        [--data digits --image-size 64]

So many configurations of the genes of `benchmarks.record_digits` are trained for so many epochs, each twice: once as
YOLOv5 evaluates, and once with `precise_bn` (batch norm's statistics estimated anew) or with `ema_share` (an average
of the weights that spans a share of the updates). Both train the same weights. The table gives Spearman's rank
correlation between the fitness after an epoch and the mean of the last three epochs of both.
"""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc, spearmanr

from benchmarks.record_digits import IMAGE_SIZE, SPACE, training

VARIED: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "precise_bn": ({"precise_bn": 0, "ema_share": 0.0}, {"precise_bn": 8, "ema_share": 0.0}),
    "ema_share": ({"ema_share": 0.0}, {"ema_share": 0.08}),
}
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 40)


def points(count: int) -> NDArray[np.float64]:
    """Configurations (count, D), encoded: the start, and by turns one from its surroundings and one from anywhere."""
    start = SPACE.encode(SPACE.start)
    drawn = qmc.Sobol(len(SPACE), rng=np.random.default_rng(6)).random_base2((count - 1).bit_length())[:count]
    near = np.clip(start + 0.9 * (drawn - 0.5), 0, 1)
    mixed = np.where(np.arange(count)[:, None] % 2 == 1, near, drawn)
    mixed[0] = start
    return mixed


def fitnesses(
    point: NDArray[np.float64], vary: str, epochs: int, data: str, image_size: int
) -> list[list[float]]:
    """Fitness after each epoch, of one configuration, in both ways."""
    from trainer import train

    curves = []
    for way in VARIED[vary]:
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "training"
            config = training(SPACE.decode(point), 0, out, epochs, data, image_size)
            curve = [row["fitness"] for row in train(replace(config, **way)).history]
            curves.append(curve + [0.0] * (epochs - len(curve)))  # one that diverged
    return curves


def table(curves: NDArray[np.float64], vary: str) -> Iterator[str]:
    """Markdown, line by line, of (configurations, 2, epochs)."""
    final = curves[:, :, -3:].mean(axis=(1, 2))
    ways = [f"{vary} {way[vary]}: rank agreement | mean fitness" for way in VARIED[vary]]
    yield f"| epoch | {' | '.join(ways)} |"
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
    parser.add_argument("--vary", choices=tuple(VARIED), default="precise_bn")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    options = parser.parse_args()
    task = {"epochs": options.epochs, "data": options.data, "image_size": options.image_size}
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        curves = list(pool.map(partial(fitnesses, vary=options.vary, **task), points(options.count)))
    print("\n".join(table(np.array(curves), options.vary)))


if __name__ == "__main__":
    main()
