"""The section of the report on the anchors of each trial: their recall and their sizes, as the trials ended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.charts import Axis, Chart, Point, drawable, fixed, legend, short
from evolve.page import Html, section, tag
from evolve.report_anchors import Levels, anchor_levels, pairs, ratio_threshold
from evolve.report_view import View, box_shapes
from evolve.trial_state import TrialState

_COLOURS = 5


@dataclass(frozen=True)
class _Set:
    """The anchors of one trial.

    Attributes:
        trial: that trained with them.
        place: number of its end, from 1.
        levels: their (w, h) in px, by level.
        threshold: largest ratio of sides of a match.
        recall: share of the sampled boxes that one of them reaches.
    """

    trial: TrialState
    place: float
    levels: Levels
    threshold: float
    recall: float


def anchor_trials_section(view: View) -> Html | None:
    """Recall and sizes of the anchors over the trials; a sentence where all have the same; None without any."""
    cloud = np.array(pairs(box_shapes(view.state).get("wh")), dtype=np.float64).reshape(-1, 2)
    sets = [
        _Set(trial, float(number), levels, threshold, _recall(cloud, levels, threshold))
        for number, trial in enumerate(view.told, start=1)
        if (levels := anchor_levels(trial.result.get("anchors")))
        and (threshold := ratio_threshold(view, trial.config.get("anchor_t")))
    ]
    if not sets or not len(cloud):
        return None
    title = "Anchors over the trials"
    different = {str(each.levels) for each in sets}
    if len(different) == 1 and len({each.threshold for each in sets}) == 1:
        words = (
            f"All {len(sets)} trials trained with the same anchors, fitted before the first: "
            f"{sets[0].recall:.2%} of the boxes sampled are reached."
        )
        return section(title, None, tag("p", words, class_="soft"))
    sets_words = "the same anchors" if len(different) == 1 else f"{len(different)} different sets of anchors"
    note = (
        f"In the order in which the trials ended: {sets_words}. Recall is the best possible one, over the "
        f"{len(cloud)} boxes that the journal samples, at each trial's own largest side ratio."
    )
    last = max(2.0, len(view.told) + 0.5)
    x = Axis(0.0, last, whole=True)
    charts = tag("div", _recall_chart(view, sets, x), _size_chart(sets, x), class_="pair")
    most = max(len(each.levels) for each in sets)
    key = [("best", "best", "best trial"), ("dot", "dot", "a trial")]
    key += [("dot", f"l{number % _COLOURS}", f"mean size at level {number + 1}") for number in range(most)]
    return section(title, note, charts, legend(key))


def _recall(cloud: NDArray[np.float64], levels: Levels, threshold: float) -> float:
    """Best possible recall over the boxes (N, 2)."""
    if not len(cloud):
        return math.nan
    anchors = np.array([anchor for level in levels for anchor in level], dtype=np.float64)
    ratio = cloud[:, None] / anchors[None]
    worst = np.maximum(ratio, 1.0 / ratio).max(axis=2).min(axis=1)
    return float((worst < threshold).mean())


def _recall_chart(view: View, sets: Sequence[_Set], x: Axis) -> Html:
    low = min(each.recall for each in sets)
    y = Axis(max(0.0, low - 0.05 * (1.0 - low) - 0.005), 1.0)
    chart = Chart(x, y, "Recall of each trial's anchors", "trials ended", "best possible recall")
    best = None if view.best is None else view.best.trial
    for each in sets:
        count = sum(map(len, each.levels))
        fitness = drawable(each.trial.fitness)
        words = (
            f"trial {each.trial.id}: {count} anchors, side ratio up to {short(each.threshold)}: "
            f"{each.recall:.2%} of the boxes" + ("" if fitness is None else f"; fitness {fixed(fitness)}")
        )
        if each.trial is best:
            chart.mark((each.place, each.recall), "best", words)
        else:
            chart.dot((each.place, each.recall), words, strength=0.7)
    return tag("figure", chart.render())


def _size_chart(sets: Sequence[_Set], x: Axis) -> Html:
    points: list[tuple[int, Point, str]] = []
    for each in sets:
        for number, level in enumerate(each.levels):
            size = math.exp(math.fsum(0.5 * math.log(w * h) for w, h in level) / len(level))
            words = (
                f"trial {each.trial.id}, level {number + 1}: {len(level)} anchors, mean size {short(size)} px"
            )
            points.append((number, (each.place, size), words))
    y = Axis.around((point[1] for _, point, _ in points), log=True)
    chart = Chart(x, y, "Mean size of each trial's anchors by level", "trials ended", "√(width × height), px")
    for number, point, words in points:
        chart.mark(point, "dot", words, css=f"anchor l{number % _COLOURS}")
    return tag("figure", chart.render())
