"""The published genetic refinement of anchors, and a Euclidean k-means, written from their descriptions.

Euclidean k-means on whitened shapes, then 1,000 generations: each multiplies every coordinate by a factor
``1 + Bernoulli(0.9) · U(0, 1) · N(0, 1) · 0.1``, clipped to 0.3..3, keeps sides of 2 px or more, judges the child on
all boxes with all anchors, and keeps it if its fitness is higher.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans

from anchors import metrics

Floats = NDArray[np.float64]

GENERATIONS, SHARE, SPREAD = 1000, 0.9, 0.1
PASSES = 30  # of the k-means


def euclidean_kmeans(wh: Floats, k: int, rng: np.random.Generator, passes: int = PASSES) -> Floats:
    """Centres (k, 2) of clusters of whitened shapes."""
    deviation = wh.std(axis=0)
    centres, _ = kmeans(wh / deviation, k, iter=passes, rng=rng)
    anchors: Floats = centres * deviation
    if len(anchors) < k:  # clusters may run empty
        anchors = np.concatenate([anchors, rng.choice(wh, k - len(anchors))])
    return anchors


def refine(
    wh: Floats,
    anchors: Floats,
    rng: np.random.Generator,
    threshold: float = 4.0,
    generations: int = GENERATIONS,
    *,
    plain: bool = False,
) -> Floats:
    """Anchors (k, 2) after so many generations.

    Args:
        wh: (N, 2) px.
        anchors: (k, 2) px to begin with.
        rng: Draws the mutations.
        threshold: Largest ratio of sides of a match.
        generations: How many.
        plain: Judge on whole (N, k, 2) arrays, as the programs that people use do, and not with our own metrics.
    """
    judge = plain_fitness if plain else sliced_fitness
    fitness = judge(wh, anchors, threshold)
    for _ in range(generations):
        step = (
            (rng.random(anchors.shape) < SHARE) * rng.random() * rng.standard_normal(anchors.shape) * SPREAD
        )
        child = np.maximum(anchors * np.clip(1 + step, 0.3, 3.0), 2.0)
        if (value := judge(wh, child, threshold)) > fitness:
            anchors, fitness = child, value
    return anchors


def plain_fitness(wh: Floats, anchors: Floats, threshold: float) -> float:
    """Fitness from one array of all boxes, anchors and sides."""
    ratio = wh[:, None] / anchors[None]
    best = np.minimum(ratio, 1 / ratio).min(axis=2).max(axis=1)
    return float((best * (best > 1 / threshold)).mean())


def sliced_fitness(wh: Floats, anchors: Floats, threshold: float) -> float:
    """The same in slices that stay in cache."""
    best = metrics.best_ratio(wh, anchors)
    return float((best * (best > 1 / threshold)).mean())
