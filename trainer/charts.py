"""Charts of a training: label statistics, learning curves, precision, recall, F1 and confusions.

Drawn with matplotlib's objects, which need no display and no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from dataset import Split
from trainer.config import TrainError
from trainer.curves import Curves
from trainer.predict import class_colour

NAMED = 12
"""Classes up to which each gets a name in a legend or a line of its own."""
BINS = 40
"""Cells along each side of the pictures of centres and sizes."""
MANY = 30
"""Boxes in the fullest cell from which its colours are logarithmic."""
INK, GREY, ACCENT = "#1b1b1b", "#9a9a9a", "#0b6e99"

Floats = NDArray[np.float64]


def draw_labels(path: Path, split: Split, names: Sequence[str]) -> None:
    """Boxes by class, where their centres lie, and how large they are."""
    rows = np.concatenate([np.zeros((0, 5), np.float32), *split.labels])
    figure = Figure(figsize=(12, 4), layout="constrained")
    bars, places, sizes = figure.subplots(1, 3)
    counts = np.bincount(rows[:, 0].astype(int), minlength=len(names))
    bars.bar(range(len(names)), counts, color=ACCENT)
    bars.set_title(f"{len(rows)} boxes on {len(split.images)} images")
    bars.set_xlabel("class")
    bars.set_ylabel("boxes")
    if len(names) <= NAMED:
        bars.set_xticks(range(len(names)), names, rotation=45, ha="right")
    for axes, columns, title, words in (
        (places, (1, 2), "centres", ("x", "y")),
        (sizes, (3, 4), "sizes", ("width", "height")),
    ):
        x, y = rows[:, columns[0]], rows[:, columns[1]]
        most = int(np.histogram2d(x, y, bins=BINS, range=[[0, 1], [0, 1]])[0].max(initial=0))
        # A few boxes a cell are told apart by an even scale, many by a logarithmic one.
        norm = LogNorm(1, most) if most > MANY else Normalize(1, max(most, 2))
        shades = axes.hist2d(x, y, bins=BINS, range=[[0, 1], [0, 1]], cmap="viridis", norm=norm, cmin=1)
        if len(rows):
            bar = figure.colorbar(shades[3], ax=axes, label="boxes")
            bar.minorticks_off()
            if most <= MANY:
                bar.locator = MaxNLocator(integer=True)
            bar.formatter = StrMethodFormatter("{x:.0f}")
        axes.set_title(title)
        axes.set_xlabel(f"{words[0]}, as a share of the image's width")
        axes.set_ylabel(f"{words[1]}, as a share of the image's height")
        axes.set_aspect("equal")
    places.invert_yaxis()  # as images are looked at
    save_figure(path, figure)


def draw_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Losses, mAP, precision and recall, and the rate over the epochs; the best one is marked."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = (
        ("losses", ("box_loss", "obj_loss", "cls_loss")),
        ("mAP", ("map50", "map50_95")),
        ("at the best F1", ("precision", "recall")),
        ("learning rate", ("lr",)),
    )
    best = 1 + max(range(len(history)), key=lambda epoch: history[epoch]["fitness"], default=0)
    epochs = np.arange(1, len(history) + 1)
    mark = "o" if len(history) < 15 else None
    for axes, (title, keys) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for key in keys:
            axes.plot(epochs, [row[key] for row in history], marker=mark, markersize=4, label=key)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.axvline(best, color=INK, linestyle=":", linewidth=1, label=f"best epoch, {best}")
        axes.legend()
    save_figure(path, figure)


def draw_pr(path: Path, curves: Curves, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Precision over recall at IoU 0.5, each class and the mean of those that occur."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    recalls, lines = np.linspace(0, 1, 201), []
    for label in np.flatnonzero(counts).tolist():
        # The best precision at a recall or above, as average precision sees it.
        recall, precision = curves.recall[label], curves.precision[label]
        reached = recall[None, :] >= recalls[:, None]
        lines.append(np.where(reached, precision[None, :], 0).max(axis=1))
        word = f"{names[label]}, {lines[-1].mean():.3f}"
        _class_line(axes, (recalls, lines[-1]), label, len(names), word)
    if lines:
        mean = np.mean(lines, axis=0)
        axes.plot(recalls, mean, color=INK, linewidth=2.5, label=f"all classes, {mean.mean():.3f}")
        axes.legend(loc="lower left", title="area")
    _unit_axes(axes, "recall", "precision", "precision over recall at IoU 0.5")
    save_figure(path, figure)


def draw_f1(path: Path, curves: Curves, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """F1 over the confidence at IoU 0.5, each class and the mean of those that occur."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    occurs = np.flatnonzero(counts).tolist()
    for label in occurs:
        _class_line(axes, (curves.thresholds, curves.f1[label]), label, len(names), names[label])
    if occurs:
        mean = curves.f1[occurs].mean(axis=0)
        best = int(mean.argmax())
        where = f"best {mean[best]:.3f} at {curves.thresholds[best]:.3f}"
        axes.plot(curves.thresholds, mean, color=INK, linewidth=2.5, label=f"all classes, {where}")
        axes.axvline(curves.thresholds[best], color=INK, linestyle=":", linewidth=1)
        axes.legend(loc="lower center")
    _unit_axes(axes, "confidence", "F1", "F1 over confidence at IoU 0.5")
    save_figure(path, figure)


def draw_confusion(path: Path, matrix: NDArray[np.int64], names: Sequence[str]) -> None:
    """What the boxes of each class were taken for; the last row and column stand for nothing.

    Args:
        path: To write.
        matrix: (classes + 1, classes + 1), `[predicted, true]` counts.
        names: Class names.
    """
    share = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1)
    size = min(max(0.55 * len(matrix) + 2.5, 5), 16)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shades, ax=axes, label="share of the column")
    axes.set_title("predictions over 0.25 at IoU 0.5")
    axes.set_xlabel("labelled as")
    axes.set_ylabel("predicted as")
    if len(matrix) <= 31:
        titles = [*names, "nothing"]
        axes.set_xticks(range(len(matrix)), titles, rotation=45, ha="right")
        axes.set_yticks(range(len(matrix)), titles)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            light = share[row, column] > 0.5
            colour = "white" if light else INK
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8
            )
    save_figure(path, figure)


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as an image of the kind that the path's ending names.

    Raises:
        TrainError: The disk is full.
    """
    try:
        FigureCanvasAgg(figure).print_figure(str(path), dpi=110)
    except OSError as error:
        raise TrainError(f"{path} could not be written: {error.strerror or error}") from error


def _class_line(axes: Any, points: tuple[Floats, Floats], label: int, classes: int, name: str) -> None:
    if classes > NAMED:
        axes.plot(*points, color=GREY, linewidth=0.7, alpha=0.6)
        return
    blue, green, red = class_colour(label)
    axes.plot(*points, color=(red / 255, green / 255, blue / 255), linewidth=1.3, label=name)


def _unit_axes(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    axes.grid(alpha=0.3)
