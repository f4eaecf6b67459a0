"""The section of the report on several objectives: the trials that none beats, and how the front grew."""

import numpy as np

from evolve.charts import Axis, Chart, fixed, legend, short
from evolve.costs import COSTS, FITNESS, UNITS, costs_of, gains, objectives_of
from evolve.objectives import Choice, front, hypervolume, pick
from evolve.page import Html, section, tag
from evolve.report_view import View


def front_section(view: View) -> Html | None:
    """Fitness against each cost, the front as a table, and its volume over the trials; None for one objective."""
    names = objectives_of(view.state.header)
    choices = front(view.state)
    if not names or not choices:
        return None
    knee = pick(view.state, "knee").id
    note = (
        f"{len(choices)} of {len(view.scored)} trials are beaten by no other in every objective. The knee is that "
        "of them which comes nearest to the best of all objectives at once. "
        + " ".join(f"{name.capitalize()}: {COSTS[name]}." for name in names[1:])
    )
    charts = [_trade(view, choices, name, knee) for name in names[1:]]
    grown = _growth(view, names)
    drawn = tag("div", *charts, *([grown] if grown else []), class_="pair")
    key = legend([("best", "best", "the knee"), ("start", "start", "on the front"), ("dot", "dot", "beaten")])
    return section("What fitness costs", note, drawn, key, _table(choices, names, knee))


def _trade(view: View, choices: list[Choice], name: str, knee: int) -> Html:
    points = [
        (scored, cost)
        for scored in view.scored
        if (cost := costs_of(scored.trial.result).get(name)) is not None and cost > 0
    ]
    x = Axis.around((cost for _, cost in points), log=True)
    y = Axis.around(scored.fitness for scored, _ in points)
    unit = f", {UNITS[name]}" if UNITS[name] else ""
    chart = Chart(x, y, f"Fitness against {name}", f"{name}{unit}", "fitness")
    on_front = {choice.trial.id for choice in choices}
    for scored, cost in points:
        words = f"trial {scored.trial.id}: fitness {fixed(scored.fitness)}, {name} {short(cost)}{unit[1:]}"
        if scored.trial.id == knee:
            chart.mark((cost, scored.fitness), "best", words)
        elif scored.trial.id in on_front:
            chart.mark((cost, scored.fitness), "start", words)
        else:
            chart.dot((cost, scored.fitness), words, strength=0.5)
    return tag("figure", chart.render())


def _growth(view: View, names: tuple[str, ...]) -> Html | None:
    """Volume that the front dominates, as the trials ended, as a share of what it is now."""
    rows = [
        (place, row)
        for place, trial in enumerate(view.told, start=1)
        if (row := gains(trial.fitness, costs_of(trial.result), names)) is not None
    ]
    if len(rows) < 2:
        return None
    table = np.array([row for _, row in rows], dtype=np.float64)
    low, spread = table.min(axis=0), np.ptp(table, axis=0)
    scaled = (table - low) / np.where(spread > 0, spread, 1.0) + 0.05
    zero = np.zeros(len(names))
    places = sorted({max(round(share * len(rows)), 1) for share in np.linspace(0.02, 1.0, 50)})
    whole = hypervolume(scaled, zero)
    points = [(float(rows[count - 1][0]), hypervolume(scaled[:count], zero) / whole) for count in places]
    x = Axis(0.0, max(float(len(view.told)), 2.0), whole=True)
    chart = Chart(
        x, Axis(0.0, 1.0), "Volume of the front", "trials ended", "volume, share of the front's now"
    )
    chart.line(points, "curve-best", "volume that the front dominates", steps=True)
    return tag("figure", chart.render())


def _table(choices: list[Choice], names: tuple[str, ...], knee: int) -> Html:
    heads = (f"{name}, {UNITS[name]}" if UNITS[name] else name for name in names)
    head = tag("tr", tag("th", "trial"), *(tag("th", each, class_="num") for each in heads))
    rows = [
        tag(
            "tr",
            tag("th", f"{choice.trial.id}" + (" (knee)" if choice.trial.id == knee else ""), scope="row"),
            *(
                tag("td", fixed(value) if name == FITNESS else short(value), class_="num")
                for name, value in choice.values.items()
            ),
            class_="winner" if choice.trial.id == knee else None,
        )
        for choice in choices
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="plain")
