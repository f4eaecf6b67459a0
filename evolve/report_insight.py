"""The sections of the report that ask why: which genes matter, where the winner came from, what can be believed."""

from collections import Counter
from typing import Any

import numpy as np

from evolve.charts import Axis, Chart, drawable, fixed, legend, short
from evolve.fidelity import Agreement, agreement_words, rank_agreement
from evolve.importance import importance
from evolve.journal import TrialState
from evolve.page import Html, join, section, tag
from evolve.report_view import View, place_of
from evolve.wording import belief_words, measured_words, origin_words

PARALLEL_TRIALS = 300
PARALLEL_HEIGHT = 230
MOST_EPOCHS = 25
MOST_CHANGES = 6


def importance_section(view: View) -> Html | None:
    """How much of the fitness each gene explains; None before there are trials enough."""
    genes, rows, fitness = view.space.genes, [], []
    for scored in view.scored:
        row = [place_of(gene, scored.trial.config.get(gene.name)) for gene in genes]
        if None not in row:
            rows.append(row)
            fitness.append(scored.fitness)
    found = importance(np.array(rows, np.float64), np.array(fitness)) if rows else None
    if found is None:
        return None
    ranked = sorted(zip(found.shares, (gene.name for gene in genes), strict=True), reverse=True)
    widest = max(ranked[0][0], 1e-9)
    bars = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", f"{100 * share:.1f} %", class_="num"),
            tag("td", _bar(share / widest), class_="bars"),
        )
        for share, name in ranked
    ]
    belief = f"The forest foretells {100 * max(found.explained, 0):.0f} % of the variance of unseen trials."
    if found.explained < 0.2:
        belief += " That is little: take the order with doubt."
    note = (
        "How much worse a random forest foretells the rank of a trial when one gene's values are shuffled, as a "
        f"share of all genes. {belief}"
    )
    return section("Which genes matter", note, tag("div", tag("table", tag("tbody", *bars)), class_="plain"))


def _bar(share: float) -> Html:
    bar = tag("rect", x="0", y="3", width=f"{100 * share:.1f}%", height="12", rx="2", class_="bar")
    return tag("svg", bar, width="100%", height="18", aria_hidden="true")


def parallel_section(view: View) -> Html | None:
    """Each trial as a line across all genes; None before there are two."""
    if len(view.scored) < 2:
        return None
    ranked = sorted(view.scored, key=lambda scored: scored.fitness)
    if len(ranked) > PARALLEL_TRIALS:  # an even choice over the ranks, the best among it
        kept = np.linspace(0, len(ranked) - 1, PARALLEL_TRIALS).round().astype(int)
        ranked = [ranked[index] for index in kept]
    names = [*view.space.names, "fitness"]
    low, high = ranked[0].fitness, ranked[-1].fitness
    chart = Chart(
        Axis(0.0, float(len(names) - 1)),
        Axis(0.0, 1.0),
        "Genes of each trial",
        height=PARALLEL_HEIGHT,
        x_names=names,
        y_names=[(0.0, "low"), (1.0, "high")],
    )
    for rank, scored in enumerate(ranked):
        values = [place_of(gene, scored.trial.config.get(gene.name)) or 0.0 for gene in view.space.genes]
        place = (scored.fitness - low) / (high - low) if high > low else 1.0
        best = view.best is not None and scored.trial is view.best.trial
        css = "curve-best" if best else f"rank r{min(4 * rank // len(ranked), 3)}"
        points = [(float(index), value) for index, value in enumerate([*values, place])]
        chart.line(points, css, f"trial {scored.trial.id}: fitness {fixed(scored.fitness)}")
    entries = [
        ("line", "rank r3", "best quarter"),
        ("line", "rank r2", "second"),
        ("line", "rank r1", "third"),
        ("line", "rank r0", "worst quarter"),
        ("line", "curve-best", "best trial"),
    ]
    ranges = f"from {short(low)} to {short(high)}"
    note = (
        "One line per trial, across every gene from the low end of its range to the high one on the scale on which "
        f"it is searched; at the right its fitness, {ranges}."
    )
    wide = tag("div", chart.render(), class_="wide-chart")
    drawn = tag("div", _brushes(names), tag("div", wide, class_="sideways", tabindex="0"), class_="parallel")
    return section("All genes at once", note, drawn, legend(entries))


def _brushes(names: list[str]) -> Html:
    """What picks out trials by the range of a gene; the page's script shows it and makes it work."""
    choice = tag("select", *(tag("option", name) for name in names))
    ends = (
        tag("input", type="range", min="0", max="100", value=value, aria_label=f"{word} end, % of its range")
        for word, value in (("low", "0"), ("high", "100"))
    )
    low, high = (tag("label", word, end) for word, end in zip(("from", "to"), ends, strict=True))
    hint = tag("span", "Or drag along an axis.", class_="soft")
    parts = (tag("label", "Only trials with", choice), low, high, tag("button", "All trials", type="button"))
    return tag("div", *parts, hint, tag("output", role="status"), class_="brushes", hidden="")


def ancestry(view: View) -> list[TrialState]:
    """The winner and, step by step, the fittest parent of each, back to a trial without parents."""
    if view.best is None:
        return []
    line, trials = [view.best.trial], view.state.trials
    while True:
        parents = line[-1].origin.get("parents")
        known = [trials[each] for each in parents if each in trials] if isinstance(parents, list) else []
        known = [trial for trial in known if trial.id < line[-1].id]  # parents were asked before
        if not known:
            return line
        line.append(max(known, key=lambda trial: (drawable(trial.fitness) or -np.inf, -trial.id)))


def lineage_section(view: View) -> Html | None:
    """Who the winner was bred from, and what changed at each step; None where it has no parents."""
    line = ancestry(view)
    if len(line) < 2:
        return None
    rows = []
    for trial, parent in zip(line, [*line[1:], None], strict=True):
        rows.append(
            tag(
                "tr",
                tag("th", f"trial {trial.id}", scope="row"),
                tag("td", fixed(trial.fitness), class_="num"),
                tag("td", origin_words(trial.origin), class_="bred"),
                tag("td", _changes(view, trial, parent), class_="sizes"),
            )
        )
    heads = (
        ("trial", None),
        ("fitness", "num"),
        ("bred by", None),
        ("what changed against its fittest parent", None),
    )
    head = tag("tr", *(tag("th", name, class_=css) for name, css in heads))
    note = "From the winner back to where its line began; each step follows the fitter parent."
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return section("Lineage of the winner", note, tag("div", table, class_="plain"))


def _changes(view: View, trial: TrialState, parent: TrialState | None) -> Html | str:
    if parent is None:
        return "–"
    moved = []
    for gene in view.space.genes:
        old, new = parent.config.get(gene.name), trial.config.get(gene.name)
        before, after = place_of(gene, old), place_of(gene, new)
        if before is not None and after is not None and before != after:
            moved.append((abs(after - before), gene.name, old, new))
    moved.sort(key=lambda change: -change[0])
    texts = [f"{name} {short(old, 3)} → {short(new, 3)}" for _, name, old, new in moved[:MOST_CHANGES]]
    if len(moved) > MOST_CHANGES:
        texts.append(f"and {len(moved) - MOST_CHANGES} smaller changes")
    return join(
        [
            join([tag("span", text), ", " if index < len(texts) - 1 else ""])
            for index, text in enumerate(texts)
        ]
    )


def belief_section(view: View) -> Html | None:
    """What speaks for and against the winner: noise over seeds, and short trainings against long ones."""
    judged = [trial for trial in view.told if trial.fitness is not None or trial.status == "stopped"]
    ended = [curve for trial in judged if (curve := _fitness_curve(trial))]
    ladder, measured = view.state.ladder, view.state.measured()
    words = [] if measured is None else [belief_words(measured)]
    words += [] if measured is not None and measured.confirmed else [_noise_words(view)]
    words += [*agreement_words(ended, view.space.names, ladder.rungs if ladder else ())]
    epochs = max(map(len, ended), default=0)
    shown = np.unique(np.linspace(1, max(epochs - 1, 1), MOST_EPOCHS).round().astype(int)).tolist()
    agreement = [found for epoch in shown if (found := rank_agreement(ended, epoch)) is not None]
    title, notes = "How far to believe it", [tag("p", text, class_="note") for text in words]
    if len(agreement) < 2:
        few = "There are too few whole trials yet to say how well short trainings rank like long ones."
        return section(title, None, *notes, tag("p", few, class_="note") if len(words) < 3 else None)
    entries = [("line", "curve-best", "rank agreement with the end"), ("line", "curve", "95 % interval")]
    return section(title, None, *notes, _agreement_chart(agreement), legend(entries))


def _fitness_curve(trial: TrialState) -> list[float]:
    rows = ((trial.reports[epoch] or {}).get("fitness") for epoch in sorted(trial.reports))
    return [value for row in rows if (value := drawable(row)) is not None]


def _agreement_chart(agreement: list[Agreement]) -> Html:
    low = min(0.0, *(each.low for each in agreement))
    chart = Chart(
        Axis(1.0, float(agreement[-1].full), whole=True),
        Axis(low, 1.0),
        "Rank agreement of each epoch with the end",
        "epoch",
        "Spearman",
        height=180,
    )
    for css, values in (
        ("curve", [each.low for each in agreement]),
        ("curve", [each.high for each in agreement]),
        ("curve-best", [each.rho for each in agreement]),
    ):
        chart.line([(float(each.epoch), value) for each, value in zip(agreement, values, strict=True)], css)
    return chart.render()


def _noise_words(view: View) -> str:
    standings = view.state.standings()
    if not standings:
        return "No trial has a fitness yet."
    best = standings[0]
    if best.margin is None:
        return (
            "Every configuration was trained once, under one seed: how much of the winner's lead is luck can't be "
            "told from this run."
        )
    text = f"The winner: {measured_words(best)}"
    start = next((each for each in standings if view.start and each.trial == view.start.trial.id), None)
    if start is None or start.margin is None or start.trial == best.trial:
        return text
    gain, margin = best.mean - start.mean, float(np.hypot(best.margin, start.margin))
    luck = " That may be luck." if gain < margin else ""
    return f"{text} The start: {measured_words(start)} A gain of {fixed(gain)} ± {fixed(margin)}.{luck}"


def failures_section(view: View) -> Html | None:
    """Why trials failed and were tried again, the most frequent reason first; None where all went well."""
    reasons: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    example: dict[str, int] = {}
    for trial in view.state.trials.values():
        if trial.status == "failed" or (trial.status == "finished" and trial.fitness is None):
            reasons[trial.reason or "no reason given"] += 1
            example.setdefault(trial.reason or "no reason given", trial.id)
        for reason in trial.retries:
            retries[reason or "no reason given"] += 1
            example.setdefault(reason or "no reason given", trial.id)
    if not reasons and not retries:
        return None
    every: list[tuple[str, Any]] = sorted((reasons + retries).items(), key=lambda item: (-item[1], item[0]))
    rows = [
        tag(
            "tr",
            tag("td", reason, class_="sizes"),
            tag("td", reasons[reason] or "–", class_="num"),
            tag("td", retries[reason] or "–", class_="num"),
            tag("td", f"trial {example[reason]}"),
        )
        for reason, _ in every
    ]
    heads = (("reason", None), ("failed", "num"), ("tried again", "num"), ("for example", None))
    head = tag("tr", *(tag("th", name, class_=css) for name, css in heads))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return section(
        "What went wrong",
        "Reasons of trials that failed, and of attempts that were repeated.",
        tag("div", table, class_="plain"),
    )
