"""The report of a run: one HTML page made from its journal alone, while the run goes on or after it."""

from pathlib import Path

from evolve.aside import write_aside
from evolve.charts import drawable, fixed, short
from evolve.journal import RunState, read_journal
from evolve.page import Html, join, page, section, tag
from evolve.report_anchor_trials import anchor_trials_section
from evolve.report_anchors import anchors_section
from evolve.report_charts import curves_section, genes_section, progress_section
from evolve.report_front import front_section
from evolve.report_insight import (
    belief_section,
    failures_section,
    importance_section,
    lineage_section,
    parallel_section,
)
from evolve.report_tables import provenance_list, trials_table, winner_table
from evolve.report_view import View, anchor_metric, box_shapes, build_view
from evolve.space import EvolveError
from evolve.wording import duration, moment


class ReportError(EvolveError):
    """A report that cannot be written."""


def write_report(run_folder: Path, target: Path | None = None) -> Path:
    """Write the page of a run.

    The same journal gives the same page, byte for byte. It is written aside and moved into place, so that a
    browser that looks at it while the run goes on never sees half of it.

    Args:
        run_folder: holds `journal.jsonl`.
        target: file to write; by default `report.html` in the run's folder.

    Returns:
        The file written.

    Raises:
        JournalError: there is no journal, or it is damaged.
        SpaceError: the journal's space cannot be.
        ReportError: the page cannot be written.
    """
    target = Path(target) if target is not None else Path(run_folder) / "report.html"
    view = build_view(read_journal(Path(run_folder) / "journal.jsonl"))
    content = build_page(view).encode()
    try:
        write_aside(target, content)
    except OSError as error:
        raise ReportError(f"{target}: the report cannot be written ({error.strerror})") from error
    return target


def build_page(view: View) -> str:
    """The page as HTML."""
    sections = [
        _headline(view),
        tag("div", progress_section(view), curves_section(view), class_="pair"),
        section("The winner beside the start", None, winner_table(view.state, view.space)),
        front_section(view),
        belief_section(view),
        lineage_section(view),
        importance_section(view),
        genes_section(view),
        parallel_section(view),
        anchors_section(view),
        anchor_trials_section(view),
        failures_section(view),
        section(
            "Trials",
            "A click on a column's head sorts by it. Fitness is that of a trial's best epoch.",
            trials_table(view.state, view.space),
        ),
        section("Provenance", "What is needed to run this again.", provenance_list(view.state.header)),
        tag("footer", f"Made by Beagle from the journal as it stood on {moment(view.state.updated_at)}."),
    ]
    return page(f"{view.state.name} · evolution", *sections)


def _headline(view: View) -> Html:
    state = view.state
    settings = state.header.get("settings")
    plain = settings.items() if isinstance(settings, dict) else ()
    # Of a path the last part is enough here: the whole stands under provenance.
    words = [
        f"{key} {str(value).rpartition('/')[2]}"
        for key, value in plain
        if isinstance(value, str | int | float)
    ]
    title = tag("h1", state.name, " ", tag("span", _standing(state), class_="state"))
    when = f"Begun {moment(state.header.get('time'))}; newest event {moment(state.updated_at)}."
    return join(
        [
            tag(
                "header",
                tag("p", "Hyperparameter evolution", class_="eyebrow"),
                title,
                tag("p", " · ".join(words[:6]), class_="soft line") if words else None,
                tag("p", when, class_="soft line"),
            ),
            tag(
                "div",
                _fitness_tile(view),
                _trials_tile(state),
                _time_tile(view),
                _recall_tile(state),
                class_="tiles",
            ),
        ]
    )


def _standing(state: RunState) -> str:
    if not state.running and len(state.trials) >= state.budget:
        return f"finished: {state.enough}" if state.enough else "finished"
    return f"stopped: {state.stopped}" if state.stopped is not None else "in progress"


def _tile(label: str, figure: object, unit: str, more: object) -> Html:
    unit_text = tag("span", f" {unit}", class_="unit") if unit else None
    return tag(
        "div",
        tag("div", label, class_="label"),
        tag("b", figure, unit_text),
        tag("div", more, class_="more"),
        class_="tile",
    )


def _fitness_tile(view: View) -> Html:
    best, start, measured = view.best, view.start, view.state.measured()
    if best is None:
        return _tile("Best fitness", "–", "", "no trial has finished yet")
    if measured is not None and measured.confirmed:
        own, from_start = measured.standing, measured.start
        alike = "" if from_start is None else f", the start {fixed(from_start.mean)}"
        more = f"confirmed by {own.runs} trainings{alike}; chosen for {fixed(measured.found.mean)}"
        return _tile("Best fitness", fixed(own.mean), f"trial {best.trial.id}", more)
    if start is None:
        return _tile(
            "Best fitness", fixed(best.fitness), f"trial {best.trial.id}", "the start has no fitness"
        )
    if best.trial is start.trial:
        return _tile("Best fitness", fixed(best.fitness), "", "the start configuration still leads")
    gain = best.fitness - start.fitness
    share = f" ({100 * gain / start.fitness:+.3g} %)" if start.fitness > 0 else ""
    more = join([f"start {fixed(start.fitness)}, ", tag("span", f"+{fixed(gain)}{share}", class_="gain")])
    return _tile("Best fitness", fixed(best.fitness), f"trial {best.trial.id}", more)


def _trials_tile(state: RunState) -> Html:
    failed = tag("span", f"{len(state.failed)} failed", class_="bad" if state.failed else None)
    stopped = f"{len(state.cut)} stopped early, " if state.ladder else ""
    more = join([f"{len(state.finished)} finished, {stopped}", failed, f", {len(state.running)} running"])
    return _tile("Trials ended", state.told, f"of {state.budget}", more)


def _time_tile(view: View) -> Html:
    training = 0.0
    for trial in view.state.trials.values():
        spent = drawable(trial.seconds)
        if spent is None and trial.reported_at is not None:
            spent = trial.reported_at - trial.asked_at
        training += spent or 0.0
    resources = view.state.header.get("resources")
    at_once = drawable(resources.get("concurrent")) if isinstance(resources, dict) else None
    more = f"{duration(training)} of training" + (
        f", {at_once:.0f} at once" if at_once and at_once > 1 else ""
    )
    gpus = drawable(view.state.resources.get("gpus")) or 0.0
    if gpus:
        more += f", {short(training * gpus / 3600, 3)} GPU hours"
    figure, unit = duration(view.seconds).split(" ")
    return _tile("Time spent", figure, unit, more)


def _recall_tile(state: RunState) -> Html | None:
    shapes = box_shapes(state)
    before, after = anchor_metric(shapes, "before", "bpr"), anchor_metric(shapes, "after", "bpr")
    if before is None and after is None:
        return None
    if after is None:
        return _tile("Best possible recall", short(before), "", "of the given anchors")
    more = "of the fitted anchors" if before is None else f"fitted; the given anchors {short(before)}"
    return _tile("Best possible recall", short(after), "", more)
