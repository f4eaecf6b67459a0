"""k-means of box shapes under 1 − IoU of centred boxes.

Source:
    YOLO9000 (Redmon and Farhadi, 2016), section "Dimension Clusters", for the distance. k-means++ (Arthur and
    Vassilvitskii, 2007) for the seeding, here with 1 − IoU in place of the squared distance.
"""

import numpy as np
from numpy.typing import NDArray

from anchors.metrics import AnchorError, Floats, centred_iou, check_wh


def kmeans(
    wh: Floats,
    k: int,
    rng: np.random.Generator,
    *,
    weights: Floats | None = None,
    restarts: int = 5,
    rounds: int = 100,
) -> Floats:
    """Centres of k clusters of shapes, the best of several restarts by mean IoU with the nearest centre.

    The centre of a cluster is the weighted median of its widths and of its heights, which a few huge boxes can't drag
    away. A round costs N × k, so give a large set as weighted bins.

    Args:
        wh: (N, 2) px, at least k rows, all greater than 0.
        k: Number of centres, at least 1.
        rng: Draws the seeds.
        weights: (N,) positive, any scale; all equal when left out.
        restarts: Number of seedings, at least 1.
        rounds: Most rounds of one restart, at least 1.

    Returns:
        (k, 2) px, sorted by area.

    Raises:
        AnchorError: k or restarts is less than 1, there are fewer than k shapes, or shapes are not positive.
    """
    shapes = check_wh(wh)
    if not 1 <= k <= len(shapes):
        raise AnchorError(f"1 <= k <= number of shapes must hold, but got k={k} and {len(shapes)} shapes")
    if restarts < 1 or rounds < 1:
        raise AnchorError(f"restarts and rounds must be at least 1, but got {restarts} and {rounds}")
    share = np.ones(len(shapes)) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    tries = [
        _one_restart(shapes, share, shapes[seed_indices(shapes, k, rng, share)], rounds)
        for _ in range(restarts)
    ]
    _, centres = max(tries, key=lambda item: item[0])
    order: NDArray[np.intp] = np.argsort(centres.prod(axis=1), kind="stable")
    return centres[order]


def seed_indices(wh: Floats, k: int, rng: np.random.Generator, weights: Floats) -> NDArray[np.intp]:
    """Draw k of the shapes, each drawn by its weight times its 1 − IoU from the nearest one drawn before.

    Args:
        wh: (N, 2) px.
        k: At most N.
        rng: Draws.
        weights: (N,) positive.

    Returns:
        (k,) indices of rows, in the order drawn, no two the same; nor the shapes, as long as others are left.
    """
    chosen = [int(rng.choice(len(wh), p=weights / weights.sum()))]
    gap = np.ones(len(wh))
    while len(chosen) < k:
        gap = np.minimum(gap, 1 - centred_iou(wh, wh[chosen[-1:]])[:, 0])
        odds = weights * np.maximum(gap, 0.0)
        odds[chosen] = 0.0
        if not odds.any():  # every shape left equals one drawn before
            odds = weights.copy()
            odds[chosen] = 0.0
        chosen.append(int(rng.choice(len(wh), p=odds / odds.sum())))
    return np.array(chosen, dtype=np.intp)


def _one_restart(wh: Floats, weights: Floats, centres: Floats, rounds: int) -> tuple[float, Floats]:
    orders = [np.argsort(wh[:, side], kind="stable") for side in (0, 1)]
    labels = np.full(len(wh), -1, dtype=np.intp)
    best = (-1.0, centres)
    for _ in range(rounds):
        iou = centred_iou(wh, centres)
        nearest = iou.argmax(axis=1)
        mean = float((iou.max(axis=1) * weights).sum())
        if (
            mean > best[0]
        ):  # the median is not the exact centre under this distance: a round may lose a little
            best = (mean, centres)
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        centres = np.stack(
            [_medians(wh[:, i], weights, labels, orders[i], centres[:, i]) for i in (0, 1)], axis=1
        )
    return best


def _medians(
    values: Floats, weights: Floats, labels: NDArray[np.intp], order: NDArray[np.intp], old: Floats
) -> Floats:
    """Weighted median of the values of each label; a label without members keeps its old one."""
    medians = old.copy()
    sorted_values, sorted_weights, sorted_labels = values[order], weights[order], labels[order]
    for label in range(len(old)):
        member = sorted_labels == label
        if member.any():
            running = np.cumsum(sorted_weights[member])
            middle = int(np.searchsorted(running, running[-1] / 2))
            medians[label] = sorted_values[member][min(middle, len(running) - 1)]
    return medians
