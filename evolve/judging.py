"""Whether a trial goes on at a rung of the ladder: by the end that is foretold of it.

What a trial has at an early rung is half of the story: genes may make it fast and poor, or slow and good. Judged by
that alone a rung would fill with fast ones, and a slow one that is better would find none of its kind ever trained to
its end. So each is judged by what `evolve.foretell` makes of the rung, with what its genes say beside it; and where
no trial of such genes went on, so that nobody knows what they do later, the doubt speaks for it.

Where the epochs of a run are limited, and not how many trials share them, the doubt counts the more, the more trials
are whole. Early rungs tell the hopeless from the others, which is most of what is to be known at first. What they say
of the good ones is off alike for those of like genes, by more than these differ, and a search that has little else to
go by stays where it is.
"""

import math

import numpy as np

from evolve.foretell import foretell_from
from evolve.ladder import WHOLE, Ladder, Rung, best_fitness
from evolve.racing import START
from evolve.run_state import RunState
from evolve.space import Space
from evolve.trial_state import Event, TrialState


def judge(
    state: RunState, space: Space, ladder: Ladder, trial: TrialState, fitness: float, rung: int
) -> Rung:
    """How a trial stands at a rung; the same for any driver of the same journal.

    Args:
        state: of the run.
        space: its genes.
        ladder: its rungs.
        trial: which has reached the rung, and was not judged there.
        fitness: its best until there.
        rung: epochs, one of `ladder.judged`.
    """
    place = ladder.judged.index(rung)
    curves = {each.id: curve for each in state.searched if (curve := _curve(each, ladder))}
    curves[trial.id] = [*curves.get(trial.id, [fitness] * place), fitness]
    points = np.array([space.encode(state.trials[number].config) for number in curves])
    genes = dict(zip(curves, space.features(points), strict=True))
    ends = foretell_from(curves, genes, place)
    before = state.at_rung(rung)
    went_on = [each.rungs[rung].goes_on for each in before]
    end, doubt = ends[trial.id]
    bar = ladder.bar([ends[each.id][0] for each in before], went_on, end)
    whole = sum(len(curve) == len(ladder.rungs) for curve in curves.values())
    times = 1.0 if state.epoch_budget is None else max(whole / WHOLE, 1.0)
    goes_on = bar is None or end + times * doubt >= bar or trial.id == START
    return Rung(rung, fitness, bar, goes_on, end, doubt, times)


def stopped_event(trial: TrialState) -> Event:
    """The end of a trial that the ladder stops: no fitness, but a curve, and the metrics of its best epoch."""
    seconds = [row.get("seconds") for row in trial.reports.values()]
    known = [each for each in seconds if each is not None]
    best = max(trial.reports, key=lambda epoch: trial.reports[epoch].get("fitness") or -math.inf)
    return {
        "event": "tell",
        "trial": trial.id,
        "status": "stopped",
        "fitness": None,
        "reason": trial.rungs[max(trial.rungs)].words,
        "metrics": trial.reports[best],
        "epochs": trial.epochs,
        "seconds": sum(known) if len(known) == len(seconds) else None,
        "curve": [trial.rungs[rung].fitness for rung in sorted(trial.rungs)],
    }


def ended_curve(trial: TrialState, ladder: Ladder | None, fitness: float | None) -> list[float]:
    """The best fitness up to each rung of a trial that has ended by itself, and its fitness.

    Empty without a ladder, of a trial that failed or confirms, and where nothing finite was measured by a rung.
    """
    if ladder is None or fitness is None or trial.confirms is not None:
        return []
    until = [best_fitness(trial.reports, rung) for rung in ladder.judged]
    return [] if None in until else [*(value for value in until if value is not None), fitness]


def _curve(trial: TrialState, ladder: Ladder) -> list[float]:
    """What a trial had at each rung that it reached, the full length among them; empty where it reached none.

    A rung by which nothing finite was measured has what came after it.
    """
    if len(trial.curve) == len(ladder.rungs):
        return trial.curve
    if not trial.rungs:
        return []
    last = max(trial.rungs)
    curve, value = [], trial.rungs[last].fitness
    for rung in reversed([each for each in ladder.judged if each <= last]):
        value = trial.rungs[rung].fitness if rung in trial.rungs else value
        curve.append(value)
    return curve[::-1]
