"""A picture of box shapes with the anchors among them."""

from collections.abc import Sequence
from os import PathLike
from typing import IO, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from anchors.metrics import AnchorError, Floats, check_anchors, check_wh, evaluate

_Box = tuple[float, float, float, float]  # left, bottom, right, top

# Okabe and Ito's palette: safe for colour-blind eyes.
_LEVELS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)
_BINS = 90
_LETTER, _LINE, _MARKER = 6.2, 14.0, 5.0  # size of a label's letter, its height, and half a marker, in points
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_INK, _GRID = "#333333", "#e3e6ea"


def plot_anchors(
    wh: ArrayLike,
    anchors: ArrayLike,
    path: str | PathLike[str] | IO[bytes],
    *,
    threshold: float = 4.0,
    title: str | None = None,
) -> None:
    """Draw the density of shapes on log axes, and every anchor as a marker labelled with its size.

    Args:
        wh: (N, 2) px.
        anchors: (levels, per_level, 2) px, drawn in one colour a level, or (k, 2) as one level.
        path: Where the picture goes: a file name (its ending says the format), or a binary file open for writing
            (PNG).
        threshold: For the figures in the title line.
        title: First line above the picture.

    Raises:
        AnchorError: there are no boxes, an array has another shape, or a side that is not finite and positive.
        OSError: the file can't be written.
    """
    shapes, flat = check_wh(wh), check_anchors(anchors)
    if not len(shapes):
        raise AnchorError("there are no boxes to draw")
    levels = flat[None] if np.ndim(anchors) == 2 else flat.reshape(np.shape(anchors))
    figure = Figure(figsize=(8, 7), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_density(figure, axes, shapes, flat)
    measured = evaluate(shapes, flat, threshold)
    figures = (
        f"boxes: {len(shapes):,}  ·  recall {measured.bpr:.4f} at threshold {threshold:g}"
        f"  ·  fitness {measured.fitness:.4f}  ·  IoU {measured.mean_best_iou:.3f}"
    )
    axes.set_title(figures, loc="left", fontsize=9.5, color="#666666", pad=8)
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=13, fontweight="bold", color=_INK)
    _draw_levels(figure, axes, levels)
    figure.savefig(path)


def plot_before_after(
    wh: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    path: str | PathLike[str] | IO[bytes],
    *,
    threshold: float = 4.0,
) -> None:
    """Draw two sets of anchors side by side over the same shapes, on the same axes, each with its reach.

    Args:
        wh: (N, 2) px.
        before: (levels, per_level, 2) px, on the left.
        after: (levels, per_level, 2) px, on the right.
        path: As `plot_anchors` has it.
        threshold: Largest ratio of sides of a match: the reach of an anchor is a square on log axes.

    Raises:
        AnchorError: there are no boxes, an array has another shape, or a side that is not finite and positive.
        OSError: the file can't be written.
    """
    shapes = check_wh(wh)
    if not len(shapes):
        raise AnchorError("there are no boxes to draw")
    sets = [check_anchors(anchors).reshape(np.shape(anchors)) for anchors in (before, after)]
    figure = Figure(figsize=(14, 6.6), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    together = np.concatenate([one.reshape(-1, 2) for one in sets])
    for axes, name, levels in zip(panels, ("before", "after"), sets, strict=True):
        _draw_density(figure, axes, shapes, together, bar=axes is panels[-1])
        _draw_reach(axes, levels, threshold)
        measured = evaluate(shapes, levels, threshold)
        axes.set_title(
            f"{name}:  recall {measured.bpr:.4f}  ·  fitness {measured.fitness:.4f}"
            f"  ·  IoU {measured.mean_best_iou:.3f}",
            loc="left",
            fontsize=11,
            color=_INK,
            pad=8,
        )
    figure.suptitle(
        f"{len(shapes):,} boxes; dashed: within reach of an anchor at threshold {threshold:g}",
        x=0.02,
        ha="left",
        fontsize=10,
        color="#666666",
    )
    for axes, levels in zip(panels, sets, strict=True):
        _draw_levels(figure, axes, levels)
    figure.savefig(path)


def _draw_reach(axes: Any, levels: Floats, threshold: float) -> None:
    for index, level in enumerate(levels):
        for w, h in level:
            corner, size = (w / threshold, h / threshold), (threshold - 1 / threshold)
            axes.add_patch(
                Rectangle(
                    corner,
                    w * size,
                    h * size,
                    fill=False,
                    linestyle=(0, (4, 3)),
                    linewidth=0.8,
                    alpha=0.55,
                    edgecolor=_LEVELS[index % len(_LEVELS)],
                )
            )


def _draw_density(figure: Figure, axes: Any, wh: Floats, anchors: Floats, *, bar: bool = True) -> None:
    logs = np.log(np.concatenate([wh, anchors]))
    margin = 0.06 * max(float(np.ptp(logs)), 1.0)
    low, high = np.exp(logs.min(axis=0) - margin), np.exp(logs.max(axis=0) + margin)
    edges = [np.geomspace(low[side], high[side], _BINS + 1) for side in (0, 1)]
    counts, _, _ = np.histogram2d(wh[:, 0], wh[:, 1], bins=edges)
    shown = np.ma.masked_less(counts.T, 1)
    norm = LogNorm(1, max(counts.max(), 10))
    axes.set(xscale="log", yscale="log", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    # The darkest end of the map is cut off, so that markers stay legible on it.
    greys = colormaps["Greys"](np.linspace(0.12, 0.72, 256))
    mesh = axes.pcolormesh(*edges, shown, cmap=ListedColormap(greys), norm=norm, linewidth=0)
    mesh.set_rasterized(True)
    if bar:
        scale = figure.colorbar(mesh, ax=axes, shrink=0.6, aspect=28, pad=0.02)
        scale.set_label("boxes", color=_INK)
        scale.outline.set_visible(False)
    for side, axis in enumerate((axes.xaxis, axes.yaxis)):
        ticks = [tick for tick in _TICKS if low[side] <= tick <= high[side]]
        axis.set_ticks(ticks, labels=[str(tick) for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("box width, px", color=_INK)
    axes.set_ylabel("box height, px", color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[:].set_visible(False)


def _draw_levels(figure: Figure, axes: Any, levels: Floats) -> None:
    colours = [_LEVELS[index % len(_LEVELS)] for index in range(len(levels))]
    for index, (level, colour) in enumerate(zip(levels, colours, strict=True), start=1):
        axes.scatter(
            *level.T, s=64, color=colour, edgecolor="white", linewidth=1.4, zorder=3, label=f"level {index}"
        )
    axes.legend(loc="upper left", frameon=True, facecolor="white", framealpha=0.9, edgecolor="none")
    figure.draw_without_rendering()  # settles the layout: from here on pixels are known
    points = axes.transData.transform(levels.reshape(-1, 2)) * 72 / figure.dpi
    names = [f"{wide:.0f}×{high:.0f}" for wide, high in levels.reshape(-1, 2)]
    places = _place_labels(points, [_LETTER * len(name) for name in names])
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        colour = colours[index // levels.shape[1]]
        axes.annotate(
            name,
            levels.reshape(-1, 2)[index],
            xytext=place,
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=8.5,
            fontweight="bold",
            color=colour,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3},
        )


def _place_labels(points: Floats, widths: Sequence[float]) -> list[tuple[float, float]]:
    """Offsets of labels from their points, so that they cover neither each other nor a marker where that can be had.

    Args:
        points: (n, 2) where the markers are, in typographic points.
        widths: Of the labels, in points.

    Returns:
        n offsets (x, y) in points: of the middle of a label's left edge.
    """
    taken = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points]
    places = []
    for (x, y), width in zip(points, widths, strict=True):
        offsets = [
            (near if side > 0 else -near - width, high * side_y)
            for near in (9.0, 24.0, 44.0, 68.0)
            for high in (8.0, 0.0, 20.0, 34.0)
            for side in (1, -1)
            for side_y in (1, -1)
        ]
        boxes = [(x + dx, y + dy - _LINE / 2, x + dx + width, y + dy + _LINE / 2) for dx, dy in offsets]
        covered = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(covered))  # the first, and so the nearest, of those that cover least
        taken.append(boxes[best])
        places.append(offsets[best])
    return places


def _overlap(one: _Box, other: _Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
