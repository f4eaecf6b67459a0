"""The sections of the report that are drawn: progress, learning curves and genes."""

from collections.abc import Iterable

import numpy as np

from evolve.charts import Axis, Chart, Point, drawable, fixed, legend, short
from evolve.journal import TrialState
from evolve.page import Html, section, tag
from evolve.report_view import Scored, View, elite
from evolve.space import Gene
from evolve.wording import origin_words

TRIALS_NOTE = (
    "A dot is the fitness of one trial, that of its best epoch, in the order in which the trials ended; higher is "
    "better. The line is the best so far, the dashed one the start. The axis need not begin at 0; the best of many "
    "noisy trainings is partly luck."
)
CURVES_NOTE = (
    "Fitness after each epoch, a line for each trial. Where lines still rise at their end, longer trials may rank "
    "otherwise."
)
CROWD = 150  # more trials than these are drawn fainter, or they are one blot


def _fitness_axis(view: View) -> Axis:
    """The fitness axis: a few collapsed trials (far under the lower quartile) must not flatten all others."""
    values = [scored.fitness for scored in view.scored]
    if not values:
        return Axis(0.0, 1.0)
    lower, upper = (float(q) for q in np.quantile(values, (0.25, 0.75)))
    floor = lower - 3.0 * max(upper - lower, 0.02 * abs(upper))
    shown = [value for value in values if value >= floor]
    return Axis.around([*shown, *(s.fitness for s in (view.start, view.best) if s is not None)])


def _draw_trial(
    chart: Chart, view: View, scored: Scored, x: float, words: str, strength: float = 1.0
) -> None:
    point = (x, scored.fitness)
    if view.best is not None and scored.trial is view.best.trial:
        chart.mark(point, "best", f"best: {words}")
    elif view.start is not None and scored.trial is view.start.trial:
        chart.mark(point, "start", f"start: {words}")
    elif scored.fitness < chart.y.low:
        chart.mark(point, "below", f"below the axis: {words}")
    else:
        chart.dot(point, words, strength=strength)


def _last(view: View, scored: Iterable[Scored]) -> list[Scored]:
    """The same, with start and best at the end: drawn last, they lie on top."""
    marked = [s.trial for s in (view.start, view.best) if s is not None]
    return sorted(scored, key=lambda s: next((i for i, trial in enumerate(marked, 1) if trial is s.trial), 0))


def progress_section(view: View) -> Html:
    """Fitness of each trial in the order of their ends, and the best so far."""
    title = "Fitness over trials"
    if not view.told:
        return section(title, None, tag("p", "No trial has ended yet.", class_="soft"))
    place = {trial.id: float(number) for number, trial in enumerate(view.told, start=1)}
    x = Axis.around([0.0, *place.values()], whole=True)
    x = Axis(0.0, max(x.high, 2.0), whole=True)
    chart = Chart(
        x, _fitness_axis(view), "Fitness of each trial, and the best so far", "trials ended", "fitness"
    )
    if view.start is not None:
        chart.rule(view.start.fitness, f"start configuration: fitness {fixed(view.start.fitness)}")
    so_far: list[Point] = []
    for scored in view.scored:
        so_far.append((place[scored.trial.id], max([scored.fitness, *(y for _, y in so_far[-1:])])))
    if so_far:
        chart.line([*so_far, (float(len(view.told)), so_far[-1][1])], "curve-best", "best so far", steps=True)
    for trial in (t for t in view.told if t.status != "stopped" and drawable(t.fitness) is None):
        chart.mark(
            (place[trial.id], chart.y.low),
            "failed",
            f"trial {trial.id} failed: {trial.reason or 'no reason'}",
        )
    strength = min(1.0, (CROWD / len(view.scored)) ** 0.5) if view.scored else 1.0
    for scored in _last(view, view.scored):
        words = (
            f"trial {scored.trial.id}, {origin_words(scored.trial.origin)}: fitness {fixed(scored.fitness)}"
        )
        _draw_trial(chart, view, scored, place[scored.trial.id], words, strength)
    below = any(s.fitness < chart.y.low for s in view.scored)
    entries = [
        ("line", "curve-best", "best so far"),
        ("dot", "dot", "a trial"),
        ("best", "best", "best"),
        ("start", "start", "start"),
        *([("failed", "failed", "failed")] if view.state.failed else []),
        *([("below", "below", "below the axis")] if below else []),
    ]
    return section(title, TRIALS_NOTE, chart.render(), legend(entries))


def _curve(trial: TrialState) -> list[Point]:
    rows = ((epoch, drawable((trial.reports[epoch] or {}).get("fitness"))) for epoch in sorted(trial.reports))
    return [(float(epoch + 1), value) for epoch, value in rows if value is not None]


def curves_section(view: View) -> Html:
    """Fitness over the epochs of each trial."""
    title = "Learning curves"
    curves = {trial.id: curve for trial in view.state.trials.values() if (curve := _curve(trial))}
    if not curves:
        return section(title, None, tag("p", "No epoch has been reported yet.", class_="soft"))
    points = [point for curve in curves.values() for point in curve]
    x = Axis(1.0, max(2.0, *(epoch for epoch, _ in points)), whole=True)
    chart = Chart(
        x, Axis.around(y for _, y in points), "Fitness over the epochs of each trial", "epoch", "fitness"
    )
    special = {
        s.trial.id: css
        for s, css in ((view.start, "curve-start"), (view.best, "curve-best"))
        if s is not None
    }
    for number in sorted(curves, key=lambda number: special.get(number, "") or "a"):
        trial, peak = view.state.trials[number], max(y for _, y in curves[number])
        css = special.get(number, "curve curve-running" if trial.status == "running" else "curve")
        chart.line(curves[number], css, f"trial {number}, {trial.status}: highest fitness {fixed(peak)}")
    entries = [
        ("line", "curve", "a trial"),
        *([("line", "curve-best", "best")] if view.best is not None else []),
        *([("line", "curve-start", "start")] if view.start is not None else []),
        *([("line", "curve-running", "still running")] if view.state.running else []),
    ]
    return section(title, CURVES_NOTE, chart.render(), legend(entries))


def genes_section(view: View) -> Html:
    """For each gene its value against fitness."""
    title = "Genes"
    if not view.scored:
        return section(title, None, tag("p", "No trial has finished yet.", class_="soft"))
    y = _fitness_axis(view)
    entries = [
        ("dot", "dot", "a trial, the later the stronger"),
        ("best", "best", "best"),
        ("start", "start", "start"),
        *([("below", "below", "below the axis")] if any(s.fitness < y.low for s in view.scored) else []),
    ]
    panels = tag("div", *(_gene_panel(view, gene, y) for gene in view.space.genes), class_="genes")
    return section(
        title,
        "Value of each gene across its range against fitness. Beside each name: start → best. "
        "Shaded: where the best fifth lies.",
        legend(entries),
        panels,
    )


def _gene_panel(view: View, gene: Gene, y: Axis) -> Html:
    x = Axis(gene.low, gene.high, log=gene.logarithmic)
    chart = Chart(x, y, f"{gene.name} against fitness", height=130, x_ticks=5, y_ticks=4)
    best_fifth = [
        value for s in elite(view) if (value := drawable(s.trial.config.get(gene.name))) is not None
    ]
    if len(best_fifth) > 2:
        chart.band(min(best_fifth), max(best_fifth), "elite", "where the best fifth of the trials lies")
    strength = {s.trial.id: 0.25 + 0.6 * n / len(view.scored) for n, s in enumerate(view.scored, start=1)}
    for scored in _last(view, view.scored):
        value = drawable(scored.trial.config.get(gene.name))
        if value is not None:
            words = f"trial {scored.trial.id}: {gene.name} {short(value, 5)}, fitness {fixed(scored.fitness)}"
            _draw_trial(chart, view, scored, value, words, strength[scored.trial.id])
    values = [short(s.trial.config.get(gene.name)) if s else "–" for s in (view.start, view.best)]
    scale = "log scale · " if gene.logarithmic else ""
    caption = tag("figcaption", tag("b", gene.name), tag("span", f"{scale}{values[0]} → {values[1]}"))
    return tag("figure", caption, chart.render())
