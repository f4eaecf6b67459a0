"""Anchors of a model judged on a data set, and fitted to it: what `beagle anchors` and `beagle evolve` share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anchors import AnchorFit, fit, metrics
from dataset import Dataset
from model.spec import ModelSpec
from trainer.config import Hyperparameters

TARGET_BPR = 0.98


@dataclass(frozen=True, eq=False)
class FittedAnchors:
    """Anchors for a model on a data set.

    Attributes:
        anchors: (levels, per_level, 2) px.
        before: The model's own, judged on the same boxes.
        after: The same figures for `anchors`.
        fitted: The fit; None where the model's own were kept.
    """

    anchors: NDArray[np.float64]
    before: metrics.AnchorMetrics
    after: metrics.AnchorMetrics
    fitted: AnchorFit | None


def fit_anchors(
    data: Dataset,
    spec: ModelSpec,
    image_size: int,
    *,
    mode: str = "auto",
    hyp: Hyperparameters | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> FittedAnchors:
    """Anchors of `spec` judged on `data`, and refitted as `mode` says.

    Args:
        data: Its training boxes are used.
        spec: Gives levels, anchors per level and the anchors to start from.
        image_size: px.
        mode: "auto", "fit" or "keep".
        hyp: `anchor_t` is the largest side ratio of a match; `anchors`, where it is not 0, how many to fit per level.
        seed: Of the search.
        progress: Called with the share that is done.

    Raises:
        AnchorError: Fewer distinct shapes than anchors.
    """
    wh_px = data.shapes(image_size)
    hyp = hyp or Hyperparameters()
    own = np.asarray(spec.anchors, dtype=np.float64)
    levels, per_level = own.shape[0], hyp.anchors or own.shape[1]
    same = per_level == own.shape[1]
    before = metrics.evaluate(wh_px, own, hyp.anchor_t)
    if mode == "keep" or (mode == "auto" and same and before.bpr >= TARGET_BPR):
        return FittedAnchors(own, before, before, None)
    start = own if same else None
    fitted = fit(wh_px, levels, per_level, hyp.anchor_t, seed=seed, start=start, progress=progress)
    return FittedAnchors(fitted.anchors, before, fitted.after, fitted)
