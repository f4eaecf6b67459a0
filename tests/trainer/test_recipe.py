"""Whole pictures: the boxes of every augmentation lie where its px do, on the CPU and on a device alike."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import Split
from dataset.polygons import pack_polygons
from trainer.augment import flip
from trainer.config import Hyperparameters
from trainer.cook_on_device import cook_batch
from trainer.erase import overlaps
from trainer.packing import pack
from trainer.plan import Draw
from trainer.recipe import Composer, cook
from trainer.warp import Scene, render

SIDE = 128
SIZES = ((96, 128), (128, 80), (128, 128), (60, 128))
BOXES = ((40, 20, 90, 70), (10, 30, 50, 100), (30, 60, 100, 110), (60, 5, 120, 55))
STILL = Hyperparameters(translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0)

seeds = st.integers(0, 2**32 - 1)
probabilities = st.sampled_from([0.0, 0.5, 1.0])
geometry = {
    "degrees": st.sampled_from([0.0, 10.0, 180.0]),
    "translate": st.sampled_from([0.0, 0.1]),
    "scale": st.sampled_from([0.0, 0.5]),
    "shear": st.sampled_from([0.0, 5.0]),
    "perspective": st.sampled_from([0.0, 0.0005]),
    "fliplr": probabilities,
    "flipud": probabilities,
    "mosaic": probabilities,
}
moves = st.builds(Hyperparameters, hsv_h=st.just(0), hsv_s=st.just(0), hsv_v=st.just(0), **geometry)


def scene(painted, *, outlines=False, ramps=False):
    """Four black images; a box is painted in one: white, or blue and green by how far right and down a px is."""
    images, labels = [], []
    for number, ((height, width), (x1, y1, x2, y2)) in enumerate(zip(SIZES, BOXES, strict=True)):
        image = np.zeros((height, width, 3), np.uint8)
        rows = np.zeros((0, 5), np.float32)
        if number == painted:
            image[y1:y2, x1:x2] = 255
            if ramps:
                image[y1:y2, x1:x2, 0] = np.rint((np.arange(x2 - x1) + 0.5) / (x2 - x1) * 255)
                image[y1:y2, x1:x2, 1] = np.rint((np.arange(y2 - y1)[:, None] + 0.5) / (y2 - y1) * 255)
            xywh = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            rows = np.array([[number, *xywh]], np.float32)
        images.append(image)
        labels.append(rows)
    polygons = (
        pack_polygons([((_triangle(i),),) if i == painted else () for i in range(4)]) if outlines else None
    )
    sizes = np.array([(width, height) for height, width in SIZES], np.int32)
    return images, Split("train", (None,) * 4, sizes, tuple(labels), polygons)


def _triangle(number):
    (height, width), (x1, y1, x2, y2) = SIZES[number], BOXES[number]
    return np.array([(x1, y2), ((x1 + x2) / 2, y1), (x2, y2)]) / (width, height)


def compose(split, hyp, seed, draw=None):
    draw = draw or Draw(seed % 4, 0, (SIDE, SIDE))
    return Composer(split, list(SIZES), hyp, seed).compose(draw)


def cook_on_device(recipe, images):
    cache = torch.zeros((4, 3, SIDE, SIDE), dtype=torch.uint8)
    for plane, image in zip(cache, images, strict=True):
        plane[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image[:, :, ::-1].copy()).permute(
            2, 0, 1
        )
    return cook_batch(cache, pack([recipe], SIZES))[0].permute(1, 2, 0).numpy()[:, :, ::-1]


COOKS = {"cpu": lambda recipe, images: cook(recipe, images.__getitem__), "device": cook_on_device}


def edges(image):
    """x1, y1, x2, y2 of the white part to a fraction of a px: how white the px at its border are says how far."""
    white = image[:, :, 1].astype(float) / 255
    if not (white > 0.9).any():
        return None
    found = []
    for profile in (white.max(axis=0), white.max(axis=1)):
        inside = np.flatnonzero(profile >= 0.5)
        found.append((inside[0], inside[-1] + 1))
    (x1, x2), (y1, y2) = found
    return np.array([x1, y1, x2, y2], float)


def box_by_ramps(image):
    """The box around the corners of the painted one, found by the map that explains the ramps; None if too few px.

    Where less than half of a side is in the picture, rounding in the ramps moves the corners outside by several px.
    """
    ys, xs = np.nonzero(image[:, :, 2] >= 252)
    if len(xs) < 100:
        return None
    u, v = image[ys, xs, :2].T.astype(float) / 255
    if min(np.ptp(u), np.ptp(v)) < 0.5:
        return None
    one, none = np.ones_like(u), np.zeros((3, len(u)))
    sides = []
    for target in (xs + 0.5, ys + 0.5):
        sides.append(np.stack([u, v, one, -u * target, -v * target]))
    rows = np.concatenate(
        [
            np.concatenate([sides[0][:3], none, sides[0][3:]]),
            np.concatenate([none, sides[1][:3], sides[1][3:]]),
        ],
        axis=1,
    ).T
    p = np.linalg.lstsq(rows, np.concatenate([xs, ys]) + 0.5, rcond=None)[0]
    corner_u, corner_v = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    depth = 1 + p[6] * corner_u + p[7] * corner_v
    x = (p[0] * corner_u + p[1] * corner_v + p[2]) / depth
    y = (p[3] * corner_u + p[4] * corner_v + p[5]) / depth
    return np.array([x.min(), y.min(), x.max(), y.max()]).clip(0, SIDE)


def only_tile(recipe, painted):
    """The one tile that shows the painted image whole on its canvas; None when there is another, or it is cut."""
    tiles = [tile for tile in recipe.base.tiles if tile.index == painted]
    if len(tiles) != 1:
        return None
    x1, y1, x2, y2 = BOXES[painted]
    height, width = recipe.base.canvas
    (tile,) = tiles
    inside = min(tile.x + x1, tile.y + y1) >= 0 and tile.x + x2 <= width and tile.y + y2 <= height
    return tile if inside else None


@pytest.mark.parametrize("place", COOKS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, hyp=moves)
def test_a_corner_is_less_than_a_px_from_that_of_the_painted_box(place, seed, hyp):
    painted = seed % 4
    images, split = scene(painted, ramps=True)
    recipe = compose(split, hyp, seed)
    if only_tile(recipe, painted) is None:
        return
    picture = COOKS[place](recipe, images)
    assert picture.shape == (SIDE, SIDE, 3)
    found = box_by_ramps(picture)
    if found is not None and len(recipe.labels):
        assert np.abs(found - recipe.labels[0, 1:]).max() < 1


@pytest.mark.parametrize("place", COOKS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, zoom=st.sampled_from([0.5, 0.75, 1.25, 1.5]), mosaic=st.sampled_from([0.0, 1.0]))
def test_boxes_follow_pictures_of_other_sizes(place, seed, zoom, mosaic):
    side = round(SIDE * zoom)
    images, split = scene(seed % 4)
    hyp = dataclasses.replace(STILL, mosaic=mosaic, scale=0.3, translate=0.1)
    recipe = compose(split, hyp, seed, Draw(seed % 4, 0, (side, side), zoom))
    picture = COOKS[place](recipe, images)
    assert picture.shape == (side, side, 3)
    if len(recipe.labels) == 1 and only_tile(recipe, seed % 4):
        assert np.abs(edges(picture) - recipe.labels[0, 1:]).max() < 1


@settings(max_examples=60, deadline=None)
@given(seed=seeds, hyp=moves)
def test_images_that_a_picture_does_not_show_are_not_read_and_it_is_the_same_without_them(seed, hyp):
    images, split = scene(seed % 4, ramps=True)
    recipe = compose(split, dataclasses.replace(hyp, mosaic=1.0, scale=0.9), seed)
    layer, read = recipe.base, []
    picture = cook(recipe, lambda index: read.append(index) or images[index])
    assert len(read) <= len(layer.tiles)
    tiles = tuple((images[tile.index], tile.x, tile.y) for tile in layer.tiles)
    whole = flip(render(Scene(layer.canvas, tiles), layer.warp), recipe.flips)
    assert np.array_equal(picture, whole)


def test_a_mosaic_seen_from_near_needs_fewer_than_four_images():
    images, split = scene(0)
    hyp, read = dataclasses.replace(STILL, mosaic=1.0, scale=0.9), []
    recipes = [compose(split, hyp, seed) for seed in range(40)]
    for recipe in recipes:
        cook(recipe, lambda index: read.append(index) or images[index])
    assert 40 <= len(read) < 0.95 * sum(len(recipe.base.tiles) for recipe in recipes)


def test_a_zoomed_picture_shows_all_that_the_unzoomed_one_shows():
    _, split = scene(2)
    boxes = {}
    for zoom in (1.0, 1.5):
        side = round(SIDE * zoom)
        boxes[zoom] = compose(split, STILL, 2, Draw(2, 0, (side, side), zoom)).labels[0, 1:] / side
    np.testing.assert_allclose(boxes[1.0], boxes[1.5], atol=1e-6)


@pytest.mark.parametrize("place", COOKS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_what_cutmix_leaves_of_a_box_is_what_its_label_says(place, seed):
    painted = seed % 4
    images, split = scene(painted)
    recipe = compose(split, dataclasses.replace(STILL, cutmix=1, fliplr=0.5), seed)
    layer, window = recipe.cut
    both = [tile.index for part in (recipe.base, layer) for tile in part.tiles]
    if both.count(painted) != 1 or not len(recipe.labels):
        return
    box, seen = recipe.labels[0, 1:], edges(COOKS[place](recipe, images))
    assert len(recipe.labels) == 1
    assert np.abs(seen - box).max() < 1
    assert window[2] >= window[0]


@pytest.mark.parametrize("place", COOKS)
@pytest.mark.parametrize("outlines", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_pasted_object_lies_where_its_label_says(place, outlines, seed):
    images, split = scene(1, outlines=outlines)
    recipe = compose(
        split, dataclasses.replace(STILL, copy_paste=1, fliplr=0.5), seed, Draw(0, 0, (SIDE, SIDE))
    )
    picture = COOKS[place](recipe, images)
    if not recipe.base.patches:
        assert not len(recipe.labels)
        return
    assert len(recipe.labels) == 1
    box = recipe.labels[0, 1:]
    assert recipe.labels[0, 0] == 1
    assert np.abs(edges(picture) - box).max() < (1.5 if outlines else 1)  # the top of a triangle is a point
    x1, y1, x2, y2 = np.rint(box).astype(int)
    share = (picture[y1:y2, x1:x2, 1] > 127).mean()
    assert share == pytest.approx(0.5 if outlines else 1.0, abs=0.05)


@pytest.mark.parametrize("way", ["erasing", "cutout", "hide_and_seek", "gridmask"])
@pytest.mark.parametrize("place", COOKS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_erasing_moves_nothing_and_drops_what_is_mostly_hidden(place, way, seed):
    images, split = scene(seed % 4)
    plain = compose(split, STILL, seed)
    erased = compose(split, dataclasses.replace(STILL, **{way: 1.0}), seed)
    before, after = (COOKS[place](recipe, images) for recipe in (plain, erased))
    hidden = np.zeros((SIDE, SIDE), bool)
    for (x1, y1, x2, y2), colour in zip(erased.holes.xyxy, erased.holes.colour, strict=True):
        hidden[y1:y2, x1:x2] = True
        assert (after[y1:y2, x1:x2] == colour).all()
    assert np.array_equal(before[~hidden], after[~hidden])
    box = plain.labels[0, 1:]
    covered = overlaps(box[None], erased.holes.xyxy).sum() / ((box[2] - box[0]) * (box[3] - box[1]))
    if covered < 0.59:
        np.testing.assert_array_equal(erased.labels, plain.labels)
    if covered > 0.61:
        assert len(erased.labels) == 0


def test_recipes_depend_on_seed_epoch_and_index_alone():
    _, split = scene(1)
    hyp = Hyperparameters(
        mosaic=0.5, mixup=0.5, cutmix=0.5, copy_paste=0.5, erasing=0.5, gridmask=0.5, degrees=5
    )
    composer = Composer(split, list(SIZES), hyp, 7)
    draws = [Draw(index, epoch, (SIDE, SIDE)) for epoch in range(3) for index in range(4)]
    first = [composer.compose(draw).labels.tolist() for draw in draws]
    again = [Composer(split, list(SIZES), hyp, 7).compose(draw).labels.tolist() for draw in reversed(draws)]
    assert first == again[::-1]
    other = [Composer(split, list(SIZES), hyp, 8).compose(draw).labels.tolist() for draw in draws]
    assert first != other


def test_genes_that_are_off_draw_nothing_so_that_older_samples_stay_the_same():
    _, split = scene(1)
    recipe = compose(split, Hyperparameters(), 3)
    rng = np.random.default_rng([3, 0, 3])
    assert rng.random() < 1
    rng.integers(4, size=3), rng.permutation(4), rng.uniform(0, 1, 2), rng.uniform(0, 1, 8), rng.random()
    assert recipe.colour == tuple(1.0 + rng.uniform(-1, 1, 3) * (0.015, 0.7, 0.4))
