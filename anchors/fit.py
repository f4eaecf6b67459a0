"""The one door: box shapes in, anchors for a detector out."""

import logging
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anchors.bins import Bins, Floats, build_bins, compress
from anchors.constrained import climb
from anchors.genetic import GeneticSettings, refine
from anchors.local import polish
from anchors.metrics import (
    AnchorError,
    AnchorMetrics,
    best_ratio,
    check_anchors,
    check_threshold,
    check_wh,
    evaluate,
)
from anchors.objective import Objective

logger = logging.getLogger(__name__)

Progress = Callable[[float], None]

_TINY = 2.0  # px: a box smaller than this on both sides teaches no anchor
_FINE = 8000  # bins on which the finalists of a search are polished
_CLIMB = 3000  # bins on which fitness is climbed at the edge of the recall target
_MARGINS = (0.0, 3e-4, 2e-3)
_FINALISTS = 3
_BONUSES = (0.01, 100.0)  # from hardly anything to recall before all else
_BISECTIONS = 5  # of the bonuses, on a log scale
_LIGHT = GeneticSettings(
    seedings=4, population=8, children=16, generations=8, patience=3, learners=6, coarse=250
)


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
        unreachable: How many of the fitted boxes no anchor found comes near enough to: ``(1 - bpr) * boxes``.
        seconds: How long the fit took.
        target_bpr: The best possible recall that was asked for.
    """

    anchors: Floats
    before: AnchorMetrics | None
    after: AnchorMetrics
    boxes: int
    ignored: int
    unreachable: int
    seconds: float
    target_bpr: float

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
) -> AnchorFit:
    """Find the anchors of highest fitness among those whose best possible recall reaches the target.

    Where no set that is found reaches the target, recall is asked to be at least that of the start (anything, without
    a start), and fitness decides. Either way the result is never worse than the start: recall up to the target first,
    then fitness.

    Args:
        wh: (N, 2) box widths and heights in px, at the image size of the training.
        levels: Detection levels, at least 1.
        per_level: Anchors of a level, at least 1.
        threshold: Largest ratio of sides at which an anchor may predict a box (``anchor_t``), greater than 1.
        target_bpr: Best possible recall to reach, 0..1.
        seed: Same seed and shapes, same anchors. At least 0.
        start: Anchors to better, (levels, per_level, 2) or (levels * per_level, 2) px in any order.
        progress: Told the share done, 0..1, never falling.

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
    kept = shapes[~(shapes < _TINY).all(axis=1)]
    bins = _check_enough(kept, len(shapes), levels, per_level)
    tell = progress or _silent
    tell(0.0)
    search = _Search(kept, bins, compress(bins, _FINE), k, threshold, rng)
    before = None if first is None else search.score(first)
    best = _best_under_goal(search, before, target_bpr, tell)
    order = np.lexsort((best.anchors[:, 0], best.anchors.prod(axis=1)))
    tell(1.0)
    return AnchorFit(
        anchors=best.anchors[order].reshape(levels, per_level, 2),
        before=None if before is None else before.metrics,
        after=best.metrics,
        boxes=len(kept),
        ignored=len(shapes) - len(kept),
        unreachable=int(np.count_nonzero(best_ratio(kept, best.anchors) <= 1 / threshold)),
        seconds=time.perf_counter() - began,
        target_bpr=float(target_bpr),
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    anchors: Floats  # (k, 2) px
    metrics: AnchorMetrics  # on all boxes


@dataclass(frozen=True, eq=False)
class _Search:
    """The boxes of one fit, at three resolutions, and one run of the search on them."""

    wh: Floats
    bins: Bins
    fine: Bins
    k: int
    threshold: float
    rng: np.random.Generator

    def score(self, anchors: Floats) -> _Scored:
        return _Scored(anchors, evaluate(self.wh, anchors, self.threshold))

    def run(
        self, bonus: float, seeds: Sequence[Floats], settings: GeneticSettings | None, progress: Progress
    ) -> _Scored:
        """Refine, polish the finalists on fine bins and the winner on all boxes, and score it exactly."""
        if len(self.bins) == self.k:  # every shape its own anchor: nothing can be better
            return self.score(np.unique(self.wh, axis=0))
        objective = Objective(float(np.log(self.threshold)), bonus)
        logs = [np.log(seed) for seed in seeds]
        found = refine(
            self.fine, self.k, objective, self.rng, seeds=logs, settings=settings, progress=progress
        )
        polished = [
            polish(anchors, self.fine, objective, self.rng, radius=0.02, sweeps=60)
            for anchors in found[:_FINALISTS]
        ]
        winner, _ = max(polished, key=lambda item: item[1])
        if settings is None:
            winner, _ = polish(winner, self.bins, objective, self.rng, radius=0.01, sweeps=4)
        return self.score(np.exp(winner))

    def climb(self, from_: _Scored, goal: float) -> _Scored:
        """A set near the one given that ranks higher: recall up to the goal first, then fitness."""
        bins, reach = compress(self.fine, _CLIMB), float(np.log(self.threshold))
        best = from_
        for margin in _MARGINS:  # the recall of the bins is not quite that of the boxes
            logs = climb(np.log(best.anchors), bins, reach, min(goal + margin, 1.0), self.rng)
            best = max(best, self.score(np.exp(logs)), key=lambda one: _rank(one, goal))
        return best


def _best_under_goal(search: _Search, before: _Scored | None, target: float, tell: Progress) -> _Scored:
    """The highest fitness whose recall reaches the goal: the target, or the start's where that can't be had."""
    seeds = [] if before is None else [before.anchors]
    free = search.run(0.0, seeds, None, _part(tell, 0.0, 0.5))
    found = [*([] if before is None else [before]), free]
    if free.metrics.bpr < target:
        goal = _goal(search, found, target, _part(tell, 0.5, 0.7))
        if free.metrics.bpr < goal:
            _trade(search, found, goal, _part(tell, 0.7, 1.0))
        target = goal
    return max(found, key=lambda one: _rank(one, target))


def _goal(search: _Search, found: list[_Scored], target: float, tell: Progress) -> float:
    """The recall to ask for, when the highest fitness alone falls short; sets of more recall are added to found."""
    start = found[:-1]
    for step, bonus in enumerate((_BONUSES[1], 3.0)):
        seeds = [one.anchors for one in found]
        found.append(search.run(bonus, seeds, None, _part(tell, step / 2, step / 2 + 0.5)))
        found.append(search.climb(max(found, key=lambda one: one.metrics.bpr), target))
        if any(one.metrics.bpr >= target for one in found):
            return target
    logger.info("no set of %d anchors was found that recalls %.4g of the boxes", search.k, target)
    return start[0].metrics.bpr if start else 0.0


def _trade(search: _Search, found: list[_Scored], goal: float, tell: Progress) -> None:
    """Add to found sets that reach the goal with more and more fitness: a bisection of the bonus, and a climb."""
    low, high = np.log(_BONUSES)
    free = max(found, key=_fitness)
    for step in range(_BISECTIONS):
        middle = (low + high) / 2
        near = max(found, key=lambda one: _rank(one, goal))
        part = _part(tell, step / _BISECTIONS, (step + 1) / _BISECTIONS)
        found.append(search.run(float(np.exp(middle)), [near.anchors, free.anchors], _LIGHT, part))
        low, high = (low, middle) if found[-1].metrics.bpr >= goal else (middle, high)
    found.append(search.climb(max(found, key=lambda one: _rank(one, goal)), goal))


def _rank(scored: _Scored, goal: float) -> tuple[bool, float, float]:
    """What decides between two sets: the goal reached or not, then the fitness, then the recall."""
    return scored.metrics.bpr >= goal, scored.metrics.fitness, scored.metrics.bpr


def _fitness(scored: _Scored) -> float:
    return scored.metrics.fitness


def _part(tell: Progress, begin: float, end: float) -> Progress:
    return lambda share: tell(begin + (end - begin) * share)


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


def _check_enough(kept: Floats, boxes: int, levels: int, per_level: int) -> Bins:
    """Distinct shapes with their weights, as many as there are anchors or more."""
    if not boxes:
        raise AnchorError("there are no boxes to fit anchors to: check that the labels were found")
    left_out = f"{boxes - len(kept)} of {boxes} boxes are under 2 px on both sides and were left out"
    if not len(kept):
        raise AnchorError(f"there are no boxes to fit anchors to: {left_out}; train at a larger image size")
    bins = build_bins(kept)
    if len(bins) < levels * per_level:
        raise AnchorError(
            f"{levels} levels of {per_level} anchors need at least {levels * per_level} distinct box shapes, "
            f"but there are {len(bins)} ({left_out}): ask for fewer levels or anchors a level, or add labels"
        )
    return bins
