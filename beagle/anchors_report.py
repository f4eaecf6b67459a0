"""What `beagle anchors` says of a fit: tables, remarks, the boxes that nobody can match, and the picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anchors.breakdown import Part, by_class, by_level, find_unmatched, remark
from beagle import console
from beagle.box_sources import Boxes
from beagle.folders import write_bytes
from trainer.autoanchor import Choice

FIGURES = {
    "bpr": "best possible recall",
    "aat": "anchors above threshold",
    "fitness": "fitness",
    "mean_best_iou": "mean best IoU",
    "mean_best_ratio": "mean best ratio",
}
SHORT = {"bpr": "BPR", "aat": "AAT", "mean_best_ratio": "ratio", "mean_best_iou": "IoU"}
SMALLEST = 2.0  # px: boxes under it on both sides are left out of a fit
NAMED = 5  # boxes out of reach that are named; all of them go to a file


@dataclass(frozen=True, eq=False)
class Judged:
    """Anchors of a model on boxes, before and after a fit.

    Attributes:
        boxes: All of them.
        own: (levels, per level, 2) px, the model's anchors.
        choice: What was found.
        strides: px of each level.
        threshold: Largest side ratio of a match.
    """

    boxes: Boxes
    own: NDArray[np.float64]
    choice: Choice
    strides: tuple[int, ...]
    threshold: float

    def parts(self) -> dict[str, list[tuple[Part | None, Part]]]:
        """Figures by level and by class, (before, after) each; before is None for a level's or class's lack."""
        tables = {}
        for what in ("level", "class"):
            before, after = (self._cut(what, anchors) for anchors in (self.own, self.choice.anchors))
            known = {part.name: part for part in before}
            tables[what] = [(known.get(part.name), part) for part in after]
        return tables

    def _cut(self, what: str, anchors: NDArray[np.float64]) -> list[Part]:
        boxes = self.boxes
        if what == "level":
            return by_level(boxes.wh, anchors, self.threshold)
        return by_class(boxes.wh, boxes.classes, boxes.names, anchors, self.threshold)


def figures(judged: Judged) -> dict[str, Any]:
    """All of it as plain data."""
    choice = judged.choice
    found: dict[str, Any] = {
        "anchors": choice.anchors.round(2).tolist(),
        "before": asdict(choice.before),
        "after": asdict(choice.after),
    }
    if choice.fitted is not None:
        names = ("boxes", "ignored", "unreachable", "beyond", "seconds", "target_bpr")
        found |= {name: getattr(choice.fitted, name) for name in names}
    for what, rows in judged.parts().items():
        found[f"by_{what}"] = [
            {
                what: after.name,
                "boxes": after.boxes,
                "before": before and asdict(before.metrics),
                "after": asdict(after.metrics),
            }
            for before, after in rows
        ]
    return found | {"remarks": remark(judged.boxes.wh, choice.anchors, judged.strides)}


def show_choice(choice: Choice) -> None:
    """Print figures before and after, and the anchors."""
    before, after = asdict(choice.before), asdict(choice.after)
    columns = ["figure", "before", "after"] if choice.fitted else ["figure", "value"]
    rows = [[text, before[key], after[key]][: len(columns)] for key, text in FIGURES.items()]
    console.show_table("Anchors on the training boxes", columns, rows)
    for level, pairs in enumerate(choice.anchors):
        shown = "  ".join(f"{w:.1f},{h:.1f}" for w, h in pairs)
        console.out.print(f"  level {level}: {shown}")


def show(judged: Judged) -> None:
    """Print figures in all, by level and by class, the anchors, and what is odd about them."""
    choice = judged.choice
    show_choice(choice)
    for what, parts in judged.parts().items():
        if len(parts) > 1:
            _show_parts(what, parts, is_fit=choice.fitted is not None)
    for line in remark(judged.boxes.wh, choice.anchors, judged.strides):
        console.note(line)
    _note_fit(judged)


def _show_parts(what: str, parts: Sequence[tuple[Part | None, Part]], *, is_fit: bool) -> None:
    rows = []
    for before, after in parts:
        cells = [_change(before if is_fit else None, after, key) if after.boxes else None for key in SHORT]
        rows.append([after.name.removeprefix("level "), after.boxes, *cells])
    title = "By level, the boxes that each suits best" if what == "level" else "By class"
    console.show_table(
        f"{title}, before → after" if is_fit else title, [what, "boxes", *SHORT.values()], rows
    )


def _change(before: Part | None, after: Part, key: str) -> str:
    now = f"{getattr(after.metrics, key):.3f}"
    return f"{getattr(before.metrics, key):.3f} → {now}" if before and before.boxes else now


def _note_fit(judged: Judged) -> None:
    fit = judged.choice.fitted
    if fit is None:
        return
    console.note(f"{fit.boxes} boxes, {fit.ignored} under 2 px left out, {fit.seconds:.1f} s")
    if fit.widest is not None and fit.beyond is not None:
        k = fit.anchors.shape[0] * fit.anchors.shape[1]
        console.note(
            f"a recall of {fit.target_bpr:g} was not found with {k} anchors: the set that reaches the most boxes "
            f"leaves out {fit.beyond} of {fit.boxes}, such as {_name_some(judged, fit.widest)}"
        )
    if fit.unreachable:
        console.note(
            f"{fit.unreachable} boxes are reached by none of these anchors, such as "
            f"{_name_some(judged, judged.choice.anchors)}"
        )


def _name_some(judged: Judged, anchors: NDArray[np.float64]) -> str:
    rows = find_unmatched(judged.boxes.wh, anchors, judged.threshold)
    rows = rows[(judged.boxes.wh[rows] >= SMALLEST).any(axis=1)][:NAMED]  # those that the fit counts
    places = judged.boxes.places()
    return ", ".join(
        f"{judged.boxes.wh[row, 0]:.1f}×{judged.boxes.wh[row, 1]:.1f} px in {Path(places[row]).name}"
        for row in rows
    )


def write_unmatched(judged: Judged, path: Path) -> int:
    """Write the boxes that none of the anchors may predict as a CSV, the farthest first.

    Returns:
        How many they are.
    """
    boxes = judged.boxes
    rows = find_unmatched(boxes.wh, judged.choice.anchors, judged.threshold)
    places = boxes.places()
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["place", "class_id", "box_w", "box_h"])
    for row in rows.tolist():
        w, h = boxes.wh[row]
        table.writerow([places[row], int(boxes.classes[row]), f"{w:.2f}", f"{h:.2f}"])
    write_bytes(path, text.getvalue().encode(errors="surrogateescape"))
    return len(rows)


def draw(judged: Judged) -> bytes:
    """The picture of shapes with the anchors before and after, PNG."""
    from anchors.plot import plot_anchors, plot_before_after

    picture = io.BytesIO()
    if judged.choice.fitted is None:
        plot_anchors(judged.boxes.wh, judged.choice.anchors, picture, threshold=judged.threshold)
    else:
        plot_before_after(
            judged.boxes.wh, judged.own, judged.choice.anchors, picture, threshold=judged.threshold
        )
    return picture.getvalue()
