"""The one door: box shapes in, anchors for a detector out."""

import operator
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anchors.bins import Bins, Floats, build_bins
from anchors.metrics import (
    AnchorError,
    AnchorMetrics,
    check_anchors,
    check_threshold,
    check_weights,
    check_wh,
    count_unreached,
    evaluate,
)
from anchors.search import SLACK, Progress, Scored, Search

_TINY = 2.0  # px: a box smaller than this on both sides teaches no anchor
_EXACT = 3  # sets that are judged on all boxes at the end


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """Anchors, and how well they fit.

    Attributes:
        anchors: (levels, per_level, 2) width and height in px, sorted by area: the first level is the one of the
            smallest stride.
        before: Figures of the anchors given as a start, None without a start.
        after: Figures of the anchors found, on all boxes that were fitted.
        boxes: How many boxes were fitted.
        ignored: How many more were left out, being under 2 px on both sides.
        unreachable: How many of the fitted boxes no anchor found comes near enough to.
        seconds: How long the fit took.
        target_bpr: The best possible recall that was asked for.
        widest: (k, 2) px, where the target is not reached: the set of most recall that a search for recall alone
            came upon. None where the target is reached.
        beyond: How many of the fitted boxes `widest` leaves out; None where the target is reached.
    """

    anchors: Floats
    before: AnchorMetrics | None
    after: AnchorMetrics
    boxes: int
    ignored: int
    unreachable: int
    seconds: float
    target_bpr: float
    widest: Floats | None = None
    beyond: int | None = None

    @property
    def reaches_target(self) -> bool:
        """Whether the best possible recall is the one asked for, or better."""
        return self.after.bpr >= self.target_bpr


def fit(  # noqa: PLR0913  the public face: one name for each thing a caller may want to say
    wh: ArrayLike,
    levels: int = 3,
    per_level: int = 3,
    threshold: float = 4.0,
    target_bpr: float = 0.98,
    seed: int = 0,
    start: ArrayLike | None = None,
    progress: Progress | None = None,
    weights: ArrayLike | None = None,
) -> AnchorFit:
    """Find the anchors of highest fitness among those whose best possible recall reaches the target.

    Where no set that is found reaches the target, recall is asked to be at least that of the start (anything, without
    a start), and fitness decides. Either way the result is never worse than the start: recall up to the target first,
    then fitness. The order of the boxes, and how often all of them are repeated, change nothing; shapes scaled by any
    factor give anchors scaled by it.

    Args:
        wh: (N, 2) box widths and heights in px, at the image size of the training.
        levels: Detection levels, at least 1.
        per_level: Anchors of a level, at least 1.
        threshold: Largest ratio of sides at which an anchor may predict a box (``anchor_t``), greater than 1.
        target_bpr: Best possible recall to reach, 0..1.
        seed: Same seed and shapes, same anchors. At least 0.
        start: Anchors to better, (levels, per_level, 2) or (levels * per_level, 2) px in any order.
        progress: Told the share done, 0..1, never falling.
        weights: (N,) how much each box counts, greater than 0, any scale; all the same when left out.

    Returns:
        The anchors and their figures.

    Raises:
        AnchorError: no boxes, sides that are not finite and positive, fewer distinct shapes than anchors, or a
            setting out of its range.

    >>> fit([[10, 20], [10, 20], [40, 30]], levels=1, per_level=2).anchors.tolist()
    [[[10.0, 20.0], [40.0, 30.0]]]
    """
    began = time.perf_counter()
    k = _check_count(levels, "levels") * _check_count(per_level, "per_level")
    check_threshold(threshold)
    if not 0 <= target_bpr <= 1:
        raise AnchorError(f"0 <= target_bpr <= 1 must hold, but got {target_bpr}")
    rng = np.random.default_rng(_check_count(seed, "seed", least=0))
    first = None if start is None else _check_start(start, levels, per_level)
    shapes = check_wh(wh)
    boxes = _Boxes.of(shapes, check_weights(weights, len(shapes)), threshold)
    unit = boxes.wh.min(axis=0) if len(boxes.wh) else np.ones(2)
    bins = _check_enough(boxes, len(shapes), unit, levels, per_level)
    tell = progress or _silent
    tell(0.0)
    before = None if first is None else boxes.judge(first)
    search = Search.over(bins, k, threshold, rng)
    if len(bins) == k and not bins.error:  # every shape its own anchor: nothing can be better
        found, widest = [search.score(np.unique(np.log(boxes.wh / unit), axis=0))], None
        sets = [np.unique(boxes.wh, axis=0)]
    else:
        found, widest = _search_all(
            search, None if first is None else np.log(first / unit), before, target_bpr, tell
        )
        sets = [_from_logs(one.logs, unit) for one in found]
    judged = [(anchors, boxes.judge(anchors)) for anchors in sets]
    if first is not None and before is not None:
        judged.append((first, before))
    anchors, after = max(judged, key=lambda item: _rank(item[1], target_bpr, before))
    missed = after.bpr < target_bpr and widest is not None
    farthest = _from_logs(widest.logs, unit) if missed and widest is not None else None
    order = np.lexsort((anchors[:, 0], anchors.prod(axis=1)))
    tell(1.0)
    return AnchorFit(
        anchors=anchors[order].reshape(levels, per_level, 2),
        before=before,
        after=after,
        boxes=len(boxes.wh),
        ignored=len(shapes) - len(boxes.wh),
        unreachable=boxes.count_beyond(anchors),
        seconds=time.perf_counter() - began,
        target_bpr=float(target_bpr),
        widest=farthest,
        beyond=None if farthest is None else boxes.count_beyond(farthest),
    )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The boxes of a fit, without those too small to teach an anchor."""

    wh: Floats
    weights: Floats | None
    threshold: float

    @classmethod
    def of(cls, shapes: Floats, weights: Floats | None, threshold: float) -> "_Boxes":
        if not len(shapes) or shapes.min() >= _TINY:
            return cls(shapes, weights, threshold)
        large = ~(shapes < _TINY).all(axis=1)
        return cls(shapes[large], None if weights is None else weights[large], threshold)

    def judge(self, anchors: Floats) -> AnchorMetrics:
        return evaluate(self.wh, anchors, self.threshold, self.weights)

    def count_beyond(self, anchors: Floats) -> int:
        return count_unreached(self.wh, anchors, self.threshold)


def _search_all(
    search: Search, start: Floats | None, before: AnchorMetrics | None, target: float, tell: Progress
) -> tuple[list[Scored], Scored | None]:
    """The best sets for the goal, and the one of highest recall where the target called for a search of it.

    The goal is the target, or the recall of the start where the target can't be had.
    """
    seeds = [] if start is None else [start]
    free = search.free(seeds, lambda share: tell(0.5 * share))
    if free.recall >= target - SLACK + _bin_doubt(search.bins):
        return [free], None
    widest = search.widest()
    tell(0.55)
    known = [free, *map(search.score, seeds)]
    highest = max([*widest, *known], key=lambda one: one.recall)
    goal = target
    if highest.recall < target - SLACK:
        goal = min(before.bpr if before else 0.0, highest.recall)
    found = [*known, *widest]
    if free.recall < goal - SLACK:
        found += search.bound(goal, [*known, *widest], lambda share: tell(0.55 + 0.45 * share))
        highest = max(found, key=lambda one: one.recall)
    best = sorted(found, key=lambda one: one.rank(goal), reverse=True)[:_EXACT]
    # A set that reaches a little more than the goal stands by, should the bins have promised too much.
    safe = [one for one in found if one.recall >= goal - SLACK + 2 * _bin_doubt(search.bins)]
    return [*best, *sorted(safe, key=lambda one: -one.fitness)[:1]], highest


def _bin_doubt(bins: Bins) -> float:
    """How far the recall of bins may be from that of the boxes, by experience; 0 where each shape has its bin."""
    return 1e-4 if bins.error else 0.0


def _from_logs(logs: Floats, unit: Floats) -> Floats:
    """Anchors in px, to ten significant digits: what lies beyond differs between machines."""
    sides = np.exp(logs) * unit
    digits = 10.0 ** (9 - np.floor(np.log10(sides)))
    anchors: Floats = np.round(sides * digits) / digits
    return anchors


def _rank(
    figures: AnchorMetrics, target: float, before: AnchorMetrics | None
) -> tuple[bool, bool, float, float]:
    """What decides between sets in the end, on all boxes."""
    no_worse = before is None or figures.bpr >= min(before.bpr, target)
    return figures.bpr >= target, no_worse, figures.fitness, figures.bpr


def _silent(_share: float) -> None:
    """Progress that nobody asked for."""


def _check_count(value: int, name: str, *, least: int = 1) -> int:
    try:
        count = operator.index(value)
    except TypeError as error:
        raise AnchorError(f"{name} must be a whole number, but got {value!r}") from error
    if count < least:
        raise AnchorError(f"{name} must be at least {least}, but got {count}")
    return count


def _check_start(start: ArrayLike, levels: int, per_level: int) -> Floats:
    flat = check_anchors(start, name="start")
    if np.shape(start) not in {(levels, per_level, 2), (levels * per_level, 2)}:
        raise AnchorError(
            f"start must have shape ({levels}, {per_level}, 2) or ({levels * per_level}, 2), "
            f"but got {np.shape(start)}"
        )
    return flat


def _check_enough(boxes: _Boxes, given: int, unit: Floats, levels: int, per_level: int) -> Bins:
    """Distinct shapes with their weights, as many as there are anchors or more."""
    if not given:
        raise AnchorError("there are no boxes to fit anchors to: check that the labels were found")
    left_out = f"{given - len(boxes.wh)} of {given} boxes are under 2 px on both sides and were left out"
    if not len(boxes.wh):
        raise AnchorError(f"there are no boxes to fit anchors to: {left_out}; train at a larger image size")
    bins = build_bins(boxes.wh, boxes.weights, unit=unit)
    if len(bins) < levels * per_level:
        raise AnchorError(
            f"{levels} levels of {per_level} anchors need at least {levels * per_level} distinct box shapes, "
            f"but there are {len(bins)} ({left_out}): ask for fewer levels or anchors a level, or add labels"
        )
    return bins
