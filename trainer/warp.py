"""Warps: one random map of the plane that moves the px of an image and the boxes of its labels alike.

Images and labels are those of `trainer.augment`: px `i` covers the interval [i, i + 1]. No function edits its
inputs; where nothing has to be done, the input may come back.

Source: the random perspective of YOLOv5.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.config import Hyperparameters
from trainer.image_cache import Image
from trainer.images import as_image

Labels = NDArray[np.float32]
"""(n, 5): class, x1, y1, x2, y2 in px."""

Matrix = NDArray[np.float64]

GREY = 114
"""Value of every pixel that no image covers."""

NEAREST_DEPTH = 1e-3
"""Points whose homogeneous coordinate is less lie at or behind the eye of a perspective and can't be seen."""


@dataclass(frozen=True, eq=False)
class Warp:
    """A map from the px of a source to the px of a picture.

    Attributes:
        matrix: (3, 3), acts on columns (x, y, 1); continuous px, where the corner of an image is 0, 0.
        size: Height, width of the picture.
        area_scale: What the map was drawn to do to an area, perspective left aside.
        window: x0, y0, width, height in source px, when the map only stretches this window over the picture.
    """

    matrix: Matrix
    size: tuple[int, int]
    area_scale: float
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """Images laid on a grey canvas, which need not be drawn whole.

    Attributes:
        size: Height, width of the canvas.
        tiles: Images with the x and y of their top left corners; what leaves the canvas is not seen.
        patches: Images laid over the tiles, each with a mask (H, W) that is 0 where it is transparent or None.
    """

    size: tuple[int, int]
    tiles: tuple[tuple[Image, int, int], ...]
    patches: tuple[tuple[Image, Image | None, int, int], ...] = ()

    def is_one_image(self, size: tuple[int, int]) -> bool:
        """Whether the canvas is exactly one image of this height and width."""
        (image, x, y), *others = self.tiles
        return not (others or self.patches) and x == y == 0 and self.size == image.shape[:2] == size

    def view(self, x0: int, y0: int, width: int, height: int) -> Image:
        """The canvas seen through a window, which may reach beyond it; only this window is drawn."""
        out = np.full((height, width, 3), GREY, np.uint8)
        window = (x0, y0, x0 + width, y0 + height)
        for image, mask, x, y in (*((tile[0], None, tile[1], tile[2]) for tile in self.tiles), *self.patches):
            left, right = max(x, window[0], 0), min(x + image.shape[1], window[2], self.size[1])
            top, bottom = max(y, window[1], 0), min(y + image.shape[0], window[3], self.size[0])
            if left >= right or top >= bottom:
                continue
            seen = (slice(top - y, bottom - y), slice(left - x, right - x))
            target = out[top - y0 : bottom - y0, left - x0 : right - x0]
            if mask is None:
                target[...] = image[seen]
            else:
                np.copyto(target, image[seen], where=mask[seen][:, :, None] > 0)
        return out


def draw_warp(
    rng: np.random.Generator,
    hyp: Hyperparameters,
    source: tuple[int, int],
    size: tuple[int, int],
    zoom: float = 1.0,
) -> Warp:
    """Draw a random perspective map: rotation, scale, shear, translation and perspective about the centre.

    Where only scale and translation are asked for, the map is rounded so that the picture shows a window of
    whole source px: a change of at most one px that lets the picture be resized, not warped, at a quarter of
    the cost. Boxes go through the rounded map too.

    Args:
        rng: Always gives the same number of draws, whatever the hyperparameters.
        hyp: `degrees`, `scale`, `shear`, `translate`, `perspective`.
        source: Height, width of the source; its centre goes to the middle of the picture, ± translation.
        size: Height, width of the picture.
        zoom: Factor beside the drawn scale.
    """
    draw = rng.uniform(-1.0, 1.0, 8)
    scale = zoom * (1.0 + float(draw[3]) * hyp.scale)
    target = (0.5 + draw[6:8] * hyp.translate) * (size[1], size[0])
    centre = np.array([source[1] / 2.0, source[0] / 2.0])
    if hyp.degrees == hyp.shear == hyp.perspective == 0.0:
        return _stretch(scale, centre, target, size)
    perspective = np.eye(3)
    perspective[2, :2] = draw[0:2] * hyp.perspective
    angle = math.radians(float(draw[2]) * hyp.degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.radians(draw[4:6] * hyp.shear))
    return Warp(_shift(target) @ shear @ rotation @ perspective @ _shift(-centre), size, scale * scale)


def _stretch(
    scale: float, centre: NDArray[np.float64], target: NDArray[np.float64], size: tuple[int, int]
) -> Warp:
    window_wh = np.maximum(np.rint(np.array([size[1], size[0]]) / scale), 1.0)
    factor = np.array([size[1], size[0]]) / window_wh
    origin = np.rint(centre - target / factor)
    matrix = np.diag([factor[0], factor[1], 1.0])
    matrix[:2, 2] = -origin * factor
    window = (int(origin[0]), int(origin[1]), int(window_wh[0]), int(window_wh[1]))
    return Warp(matrix, size, float(factor[0] * factor[1]), window)


def _shift(xy: Sequence[float] | NDArray[np.float64]) -> Matrix:
    matrix = np.eye(3)
    matrix[:2, 2] = xy
    return matrix


def render(scene: Scene, warp: Warp, recolour: Callable[[Image], Image] | None = None) -> Image:
    """The picture that a warp makes of a scene, bilinear; grey where it shows nothing of the canvas.

    Args:
        scene: What is seen.
        warp: How.
        recolour: A change of every px by itself, made where there are fewest: before or after the warp.
    """
    window, few = warp.window, warp.size[0] * warp.size[1]
    # Beyond four times the area most of the window is grey: warping what is left costs less than drawing it.
    if window is None or window[2] * window[3] > 4 * few:
        picture = _warp_image(scene, warp)
    elif window == (0, 0, *warp.size[::-1]) and scene.is_one_image(warp.size):
        picture = scene.tiles[0][0]
    else:
        picture = scene.view(*window)
        if recolour is not None and window[2] * window[3] < few:
            picture, recolour = recolour(picture), None
        if picture.shape[:2] != warp.size:
            picture = as_image(cv2.resize(picture, warp.size[::-1], interpolation=cv2.INTER_LINEAR))
    return picture if recolour is None else recolour(picture)


def _warp_image(scene: Scene, warp: Warp) -> Image:
    height, width = warp.size
    x0, y0, x1, y1 = _seen_region(scene.size, warp)
    view = scene.view(x0, y0, x1 - x0, y1 - y0)
    # OpenCV counts px from their middles, we from the corner of the image.
    matrix = _shift((-0.5, -0.5)) @ warp.matrix @ _shift((x0 + 0.5, y0 + 0.5))
    # Warped with a fourth channel, which is dropped again: OpenCV takes two to five times as long for three.
    view = as_image(cv2.cvtColor(view, cv2.COLOR_BGR2BGRA))
    options: dict[str, Any] = {"flags": cv2.INTER_LINEAR, "borderValue": (GREY,) * 4}
    if warp.matrix[2, 0] == warp.matrix[2, 1] == 0.0:
        picture = cv2.warpAffine(view, matrix[:2], (width, height), **options)
    else:
        picture = cv2.warpPerspective(view, matrix, (width, height), **options)
    return as_image(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR))


def seen_region(canvas: tuple[int, int], warp: Warp) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in px of the canvas (height, width): no px outside it has a part in the picture."""
    if warp.window is None:
        return _seen_region(canvas, warp)
    x0, y0, width, height = warp.window
    return x0 - 2, y0 - 2, x0 + width + 2, y0 + height + 2


def _seen_region(canvas: tuple[int, int], warp: Warp) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the least part of the canvas that the picture shows, at least one px."""
    height, width = warp.size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    found = np.linalg.inv(warp.matrix) @ corners
    if found[2].min() < NEAREST_DEPTH:  # the horizon is in the picture
        return 0, 0, canvas[1], canvas[0]
    xy = found[:2] / found[2]
    low, high = np.floor(xy.min(axis=1)) - 2, np.ceil(xy.max(axis=1)) + 2  # 2: bilinear needs a neighbour
    x0, y0 = (int(min(max(v, 0), side - 1)) for v, side in zip(low, canvas[::-1], strict=True))
    x1, y1 = (
        int(min(max(v, start + 1), side)) for v, start, side in zip(high, (x0, y0), canvas[::-1], strict=True)
    )
    return x0, y0, x1, y1


def to_corners(labels: Labels, size: tuple[int, int]) -> Labels:
    """Labels (n, 5) class, centre x, y, width, height as shares of an image to those in px of it.

    Args:
        labels: In [0, 1] but for the class.
        size: Height, width of the image in px.
    """
    half = labels[:, 3:5] / 2
    wh = np.array([size[1], size[0]], np.float32)
    corners = (labels[:, 1:3] - half) * wh, (labels[:, 1:3] + half) * wh
    return np.concatenate([labels[:, :1], *corners], axis=1, dtype=np.float32)


def to_shares(labels: Labels, size: tuple[int, int]) -> Labels:
    """The inverse of `to_corners`."""
    wh = np.array([size[1], size[0]], np.float32)
    low, high = labels[:, 1:3] / wh, labels[:, 3:5] / wh
    return np.concatenate([labels[:, :1], (low + high) / 2, high - low], axis=1)


def warp_labels(labels: Labels, warp: Warp) -> Labels:
    """Labels (n, 5) in source px to labels (m, 5) in px of the picture: boxes around the warped boxes.

    Boxes are clipped to the picture; those that `worth_showing` refuses are left out.
    """
    if not len(labels):
        return labels.copy()
    before = labels[:, 1:].astype(np.float64)
    if warp.window is None:
        after = _warp_boxes(before, warp.matrix)
    else:  # no side turns
        after = before * np.tile(warp.matrix.diagonal()[:2], 2) + np.tile(warp.matrix[:2, 2], 2)
    height, width = warp.size
    after = after.clip(0.0, (width, height, width, height))
    keep = worth_showing(before, after, warp.area_scale)
    return np.concatenate([labels[keep, :1], after[keep].astype(np.float32)], axis=1)


def _warp_boxes(xyxy: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Boxes (n, 4) around warped boxes (n, 4), less what lies behind the eye; zeros where nothing is left."""
    corners = np.ones((len(xyxy), 4, 3))  # around the box, so that [i] and [i + 1] share a side
    corners[:, :, 0] = xyxy[:, [0, 2, 2, 0]]
    corners[:, :, 1] = xyxy[:, [1, 1, 3, 3]]
    points = corners @ matrix.T
    if matrix[2, 0] == matrix[2, 1] == 0.0:
        return np.concatenate([points[:, :, :2].min(axis=1), points[:, :, :2].max(axis=1)], axis=1)
    following = np.roll(points, -1, axis=1)
    depth, next_depth = points[:, :, 2], following[:, :, 2]
    front: NDArray[np.bool_] = np.greater_equal(depth, NEAREST_DEPTH)
    crosses = front ^ np.roll(front, -1, axis=1)
    share = np.where(crosses, NEAREST_DEPTH - depth, 0.0) / np.where(crosses, next_depth - depth, 1.0)
    points = np.concatenate([points, points + share[:, :, None] * (following - points)], axis=1)
    seen = np.concatenate([front, crosses], axis=1)
    xy = points[:, :, :2] / np.where(seen, points[:, :, 2], 1.0)[:, :, None]
    low = np.where(seen[:, :, None], xy, np.inf).min(axis=1)
    high = np.where(seen[:, :, None], xy, -np.inf).max(axis=1)
    return np.where(seen.any(axis=1, keepdims=True), np.concatenate([low, high], axis=1), 0.0)


def worth_showing(
    before: NDArray[np.floating[Any]], after: NDArray[np.floating[Any]], area_scale: float = 1.0
) -> NDArray[np.bool_]:
    """Which warped and clipped boxes still show their object.

    Args:
        before: (n, 4) x1, y1, x2, y2 in px of the source.
        after: (n, 4) x1, y1, x2, y2 in px of the picture, clipped to it.
        area_scale: Area in the picture of one source px.

    Returns:
        (n,): both sides at least 2 px, at least 10 % of the area kept, and an aspect of at most 100.
    """
    was_wh = before[:, 2:] - before[:, :2]
    is_wh = after[:, 2:] - after[:, :2]
    kept = is_wh.prod(axis=1) >= 0.1 * area_scale * was_wh.prod(axis=1)
    visible = (is_wh >= 2.0).all(axis=1)
    return np.asarray(kept & visible & (is_wh.max(axis=1) <= 100.0 * is_wh.min(axis=1)))
