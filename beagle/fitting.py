"""Anchors of a model judged on a data set, and fitted to it: what `beagle anchors` and `beagle evolve` share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataset import Dataset, load
from model.spec import ModelSpec, load_spec, round_image_size
from trainer.autoanchor import Choice, choose
from trainer.config import Hyperparameters


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


def fit_anchors(
    inputs: Inputs,
    *,
    mode: str = "auto",
    hyp: Hyperparameters | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Choice:
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
    hyp = hyp or Hyperparameters()
    return choose(
        inputs.data.shapes(inputs.image_size),
        np.asarray(inputs.spec.anchors, dtype=np.float64),
        mode=mode,
        per_level=hyp.anchors,
        threshold=hyp.anchor_t,
        seed=seed,
        progress=progress,
    )
