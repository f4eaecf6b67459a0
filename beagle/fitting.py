"""Anchors of a model judged on a data set, and fitted to it: what `beagle anchors` and `beagle evolve` share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anchors import AnchorFit, fit, metrics
from dataset import Dataset, load
from model.spec import ModelSpec, load_spec, round_image_size
from trainer.config import Hyperparameters

TARGET_BPR = 0.98


@dataclass(frozen=True, eq=False)
class Inputs:
    """A data set and the model that is to learn it.

    Attributes:
        data: The data set.
        spec: The model, for the data's classes.
        image_size: px, a multiple of the model's grid.
    """

    data: Dataset
    spec: ModelSpec
    image_size: int


def load_inputs(data: str, model: str, image_size: int, note: Callable[[str], None]) -> Inputs:
    """Read a data set and a model, and round the image size up to the model's grid.

    Args:
        data: What `dataset.load` reads.
        model: A model of the zoo or a YAML file.
        image_size: px.
        note: Told what was mended and rounded, a line each.

    Raises:
        DataError: The data can't be read.
        ModelError: The model can't be, or the image size is no positive number.
    """
    dataset = load(data)
    spec = load_spec(model, classes=len(dataset.names))
    for line in (*dataset.notes, *spec.notes):
        note(line)
    rounded = round_image_size(image_size, spec.grid)
    if rounded != image_size:
        note(f"image size {image_size} is no multiple of {spec.grid}: {rounded} is used")
    return Inputs(dataset, spec, rounded)


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
    inputs: Inputs,
    *,
    mode: str = "auto",
    hyp: Hyperparameters | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> FittedAnchors:
    """A model's anchors judged on a data set, and refitted as `mode` says.

    Args:
        inputs: Training boxes, and the model that gives levels, anchors per level and the anchors to start from.
        mode: "auto", "fit" or "keep".
        hyp: `anchor_t` is the largest side ratio of a match; `anchors`, where it is not 0, how many to fit per level.
        seed: Of the search.
        progress: Called with the share that is done.

    Raises:
        AnchorError: Fewer distinct shapes than anchors.
    """
    wh_px = inputs.data.shapes(inputs.image_size)
    hyp = hyp or Hyperparameters()
    own = np.asarray(inputs.spec.anchors, dtype=np.float64)
    levels, per_level = own.shape[0], hyp.anchors or own.shape[1]
    same = per_level == own.shape[1]
    before = metrics.evaluate(wh_px, own, hyp.anchor_t)
    if mode == "keep" or (mode == "auto" and same and before.bpr >= TARGET_BPR):
        return FittedAnchors(own, before, before, None)
    start = own if same else None
    fitted = fit(wh_px, levels, per_level, hyp.anchor_t, seed=seed, start=start, progress=progress)
    return FittedAnchors(fitted.anchors, before, fitted.after, fitted)
