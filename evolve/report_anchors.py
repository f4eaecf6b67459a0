"""The section of the report on anchors: both sets over the box shapes, each with its reach, and their figures."""

from typing import Any

from evolve.charts import Axis, Chart, Point, drawable, legend, short
from evolve.page import Html, join, section, tag
from evolve.report_view import View, anchor_metric, box_shapes

_THRESHOLD = 4.0  # largest ratio of sides of a match, where a run does not say
_COLOURS = 5

Levels = list[list[Point]]


def anchors_section(view: View) -> Html | None:
    """Anchors over box shapes, before and after; None where the journal says nothing of them."""
    shapes = box_shapes(view.state)
    cloud, given = pairs(shapes.get("wh")), anchor_levels(shapes.get("anchors_before"))
    fitted = anchor_levels(view.best.trial.result.get("anchors")) if view.best is not None else []
    if not (cloud or given or fitted):
        return None
    evolved = view.best.trial.config.get("anchor_t") if view.best is not None else None
    sets = [
        (name, levels, threshold)
        for name, levels, threshold in (
            ("before", given, ratio_threshold(view)),
            ("after", fitted, ratio_threshold(view, evolved)),
        )
        if levels
    ]
    size = short(shapes.get("image_size"))
    note = (
        f"Width and height of the training boxes in px at image size {size}. Dashed: what an anchor reaches at the "
        "largest side ratio of a match. Boxes that no anchor reaches are red: they teach nothing."
    )
    corners = [point for _, levels, _ in sets for level in levels for point in level]
    axes = tuple(Axis.around((point[side] for point in [*cloud, *corners]), log=True) for side in (0, 1))
    drawn = [_panel(cloud, axes, *one) for one in sets] or [_panel(cloud, axes, "box shapes", [], _THRESHOLD)]
    most = max([len(levels) for _, levels, _ in sets], default=0)
    key = [
        *(("best", f"l{number % _COLOURS}", f"level {number + 1}") for number in range(most)),
        *((("dot", "box-in", "a box"), ("dot", "box-out", "a box out of reach")) if cloud else ()),
    ]
    table = _anchor_table(shapes, given, fitted)
    return section("Anchors over the box shapes", note, tag("div", *drawn, class_="pair"), legend(key), table)


def ratio_threshold(view: View, evolved: object = None) -> float:
    """Largest ratio of sides: of a trial's gene, else of the run's hyperparameters."""
    settings = view.state.header.get("settings")
    hyp = settings.get("hyp") if isinstance(settings, dict) else None
    of_run = hyp.get("anchor_t") if isinstance(hyp, dict) else None
    for value in (evolved, of_run):
        number = drawable(value)
        if number is not None and number > 1:
            return number
    return _THRESHOLD


def _panel(cloud: list[Point], axes: tuple[Axis, ...], name: str, levels: Levels, threshold: float) -> Html:
    """One set of anchors over the shapes."""
    x, y = axes
    chart = Chart(
        x, y, f"Box shapes and anchors, {name}", "width, px", "height, px", height=330, x_ticks=8, y_ticks=8
    )
    anchors = [point for level in levels for point in level]
    reached: list[Point] = []
    missed: list[Point] = []
    for box in cloud:
        near = not anchors or any(_reaches(anchor, box, threshold) for anchor in anchors)
        (reached if near else missed).append(box)
    chart.cloud(reached, "cloud")
    chart.cloud(missed, "missed")
    for number, level in enumerate(levels):
        colour = number % _COLOURS
        for w, h in level:
            words = f"anchor of level {number + 1}: {short(w)} × {short(h)} px"
            low, high = (w / threshold, h / threshold), (w * threshold, h * threshold)
            chart.frame(low, high, f"reach s{colour}", f"reach of the {words}")
            chart.mark((w, h), "best", words, css=f"anchor l{colour}")
    heading = [tag("b", name)]
    if cloud and anchors:
        share = f"{len(reached) / len(cloud):.2%} of the boxes shown are reached"
        heading.append(tag("span", f" · {share}, threshold {short(threshold)}", class_="soft"))
    return tag("figure", tag("figcaption", *heading), chart.render())


def _reaches(anchor: Point, box: Point, threshold: float) -> bool:
    return all(
        side < threshold * own and own < threshold * side for own, side in zip(anchor, box, strict=True)
    )


def pairs(value: object) -> list[Point]:
    """The (w, h) pairs of a list that are positive numbers."""
    found = []
    for item in value if isinstance(value, list) else ():
        numbers = [drawable(part) for part in item] if isinstance(item, list) else []
        if len(numbers) == 2 and all(number is not None and number > 0 for number in numbers):
            found.append((float(numbers[0] or 0), float(numbers[1] or 0)))
    return found


def anchor_levels(value: object) -> list[list[Point]]:
    """Anchors of each level, from levels × per level × 2, or from one flat list."""
    levels = [pairs(level) for level in value] if isinstance(value, list) else []
    return [level for level in levels if level] or [flat for flat in [pairs(value)] if flat]


def _anchor_table(shapes: dict[str, Any], given: list[list[Point]], fitted: list[list[Point]]) -> Html:
    names = {
        "bpr": "Best possible recall",
        "aat": "Anchors above threshold",
        "fitness": "Fitness of the anchors",
        "mean_best_iou": "Mean best IoU",
    }
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(
                tag("td", short(anchor_metric(shapes, side, key)), class_="num")
                for side in ("before", "after")
            ),
        )
        for key, name in names.items()
    ]
    for number in range(max(len(given), len(fitted))):
        cells = (levels[number] if number < len(levels) else [] for levels in (given, fitted))
        texts = (
            join([join([" ", tag("span", f"{w:.0f}×{h:.0f}")]) for w, h in cell]) or "–" for cell in cells
        )
        rows.append(
            tag(
                "tr",
                tag("th", f"Level {number + 1}, px", scope="row"),
                *(tag("td", text, class_="num sizes") for text in texts),
            )
        )
    head = tag("tr", tag("th"), tag("th", "given", class_="num"), tag("th", "fitted", class_="num"))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="plain")
