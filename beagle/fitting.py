"""Anchors of a model judged on a data set, and fitted to it: what `beagle anchors` and `beagle evolve` share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from anchors import fit, metrics
from anchors.jitter import jitter
from beagle.anchors_report import Judged
from beagle.box_sources import gather_boxes, read_sources
from dataset import Dataset, load
from dataset.parallel import MapFiles
from model.spec import ModelSpec, load_spec, round_image_size
from trainer.autoanchor import TARGET_BPR, Choice, choose
from trainer.config import Hyperparameters
from trainer.plan import LARGEST

MULTI_SCALE = LARGEST - 1  # image sizes are drawn from 1 - this to 1 + this


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


def load_inputs(
    data: str, model: str, image_size: int, note: Callable[[str], None], difficult: str = "learn"
) -> Inputs:
    """Read a data set and a model, and round the image size up to the model's grid.

    Args:
        data: What `dataset.load` reads.
        model: A model of the zoo or a YAML file.
        image_size: px.
        note: Told what was mended and rounded, a line each.
        difficult: As for `dataset.load`.

    Raises:
        DataError: The data can't be read.
        ModelError: The model can't be, or the image size is no positive number.
    """
    dataset = load(data, difficult=difficult)
    spec = load_spec(model, classes=len(dataset.names))
    for line in (*dataset.notes, *spec.notes):
        note(line)
    return Inputs(dataset, spec, _rounded(image_size, spec, note))


@dataclass(frozen=True)
class Fit:
    """What `beagle anchors` is asked for.

    Attributes:
        data: Sources of boxes, see `beagle.box_sources`.
        weights: What each of them counts as a whole; empty: every box counts alike.
        model: A model of the zoo or a YAML file: levels, strides and the anchors to better.
        image_size: px.
        threshold: Largest side ratio of a match.
        per_level: Anchors of a level; 0 for the model's number.
        seed: Of the search.
        mode: "fit", or "keep" to judge the model's own.
        jitter: Boxes are seen scaled by 1 ± this, 0..0.99.
        multi_scale: Whether image sizes are drawn from 0.5 to 1.5 times `image_size`.
        ray: Address of a Ray cluster that reads the files, "local" for one on this machine, None for no Ray.
    """

    data: tuple[str, ...]
    weights: tuple[float, ...]
    model: str
    image_size: int
    threshold: float = 4.0
    per_level: int = 0
    seed: int = 0
    mode: str = "fit"
    jitter: float = 0.0
    multi_scale: bool = False
    ray: str | None = None


def reader(ray: str | None) -> MapFiles | None:
    """What spreads the reading of label files over a Ray cluster; None where no cluster is named."""
    if ray is None:
        return None
    from evolve.ray_session import ray_map

    return partial(ray_map, address=None if ray == "local" else ray)


def judge(
    request: Fit, note: Callable[[str], None], progress: Callable[[float], None] | None = None
) -> tuple[Judged, ModelSpec]:
    """Read boxes and model, judge the model's anchors, and fit others where that is asked for.

    Args:
        request: What is asked for.
        note: Told what was mended and rounded, a line each.
        progress: Told the share done.

    Raises:
        DataError: A source can't be read.
        ModelError: The model can't be.
        AnchorError: No anchors can be fitted to such boxes.
        CommandError: The weights are not one for each source.
    """
    sources = read_sources(request.data, note, reader(request.ray))
    classes = max((len(source.names) for source in sources), default=0)
    spec = load_spec(request.model, classes=classes or None)
    for line in spec.notes:
        note(line)
    size = _rounded(request.image_size, spec, note)
    boxes = gather_boxes(sources, request.weights, size)
    own = np.asarray(spec.anchors, dtype=np.float64)
    shapes, weights = boxes.wh, boxes.weights
    if request.jitter or request.multi_scale:
        shapes = jitter(
            boxes.wh,
            np.random.default_rng(request.seed),
            scale=request.jitter,
            multi_scale=MULTI_SCALE if request.multi_scale else 0.0,
            limit=size,
        )
        weights = None if weights is None else np.tile(weights, len(shapes) // len(boxes.wh))
    before = metrics.evaluate(shapes, own, request.threshold, weights)
    if request.mode == "keep":
        return Judged(boxes, own, Choice(own, before, before, None), spec.strides, request.threshold), spec
    wanted = request.per_level or own.shape[1]
    found = fit(
        shapes,
        len(own),
        wanted,
        request.threshold,
        TARGET_BPR,
        request.seed,
        start=own if wanted == own.shape[1] else None,
        progress=progress,
        weights=weights,
    )
    choice = Choice(found.anchors, before, found.after, found)
    return Judged(boxes, own, choice, spec.strides, request.threshold), spec


def _rounded(image_size: int, spec: ModelSpec, note: Callable[[str], None]) -> int:
    rounded = round_image_size(image_size, spec.grid)
    if rounded != image_size:
        note(f"image size {image_size} is no multiple of {spec.grid}: {rounded} is used")
    return rounded


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
