"""The sections of the report that ask why, and the figures behind them."""

import html
import re
from typing import Any

import numpy as np
import pytest

from evolve.importance import importance
from evolve.report import build_page
from evolve.report_insight import ancestry
from evolve.report_view import View, build_view, elite
from evolve.space import Gene, Space

SPACE = Space(
    [Gene("lr0", 1e-5, 0.1, start=0.01, log=True), Gene("mixup", 0, 1, start=0.0), Gene("dead", 0, 1)]
)
Event = dict[str, Any]


def header(trials: int) -> Event:
    return {
        "event": "run",
        "time": 0.0,
        "version": 1,
        "name": "why",
        "trials": trials,
        "seed": 0,
        "space": SPACE.to_dict(),
        "search": {},
        "settings": {"epochs": 4},
        "resources": {"cpus": 1.0, "gpus": 0.5},
    }


def trial(
    number: int, fitness: float | None, origin: Event, config: Event, curve: tuple[float, ...] = ()
) -> list[Event]:
    at = 10.0 * number
    events: list[Event] = [{"event": "ask", "time": at, "trial": number, "config": config, "origin": origin}]
    events += [
        {"event": "report", "time": at, "trial": number, "attempt": 0, "epoch": e, "metrics": {"fitness": f}}
        for e, f in enumerate(curve)
    ]
    told = {"status": "failed" if fitness is None else "finished", "fitness": fitness, "seconds": 7200.0}
    reason = "no number" if fitness is None else None
    return [*events, {"event": "tell", "time": at + 5, "trial": number, "reason": reason, **told}]


def bred(number: int, parents: list[int]) -> Event:
    return {"kind": "start" if number == 0 else "mutation", "parents": parents}


def run(count: int = 30) -> list[Event]:
    """A run in which only mixup matters, each trial bred from the one before."""
    rng = np.random.default_rng(1)
    events = [header(count)]
    for number in range(count):
        config = {"lr0": 0.01, "mixup": float(rng.random()), "dead": float(rng.random())}
        fitness = None if number == 7 else 0.2 + 0.5 * config["mixup"]
        curve = tuple((fitness or 0.0) * share for share in (0.25, 0.5, 0.75, 1.0))
        events += trial(number, fitness, bred(number, [number - 1] if number else []), config, curve)
    return events


def text_of(view: View) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", build_page(view)))


def test_the_gene_that_matters_leads_and_a_dead_one_has_no_share() -> None:
    rng = np.random.default_rng(0)
    genes = rng.random((80, 3))
    found = importance(genes, 3 * genes[:, 1] + 0.05 * rng.standard_normal(80))
    assert found is not None
    assert found.shares[1] > 0.9
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.explained > 0.8


def test_pure_noise_is_not_explained() -> None:
    rng = np.random.default_rng(0)
    found = importance(rng.random((60, 4)), rng.standard_normal(60))
    assert found is not None
    assert found.explained < 0.2


@pytest.mark.parametrize(("count", "fitness"), [(0, 0.5), (3, 0.5), (40, 0.5)])
def test_few_trials_or_equal_ones_have_no_importance(count: int, fitness: float) -> None:
    assert importance(np.random.default_rng(0).random((count, 2)), np.full(count, fitness)) is None


def test_the_page_says_what_matters_who_begot_whom_and_what_went_wrong() -> None:
    view = build_view(run())
    text = text_of(view)
    shares = {
        name: float(re.search(rf"{name}\s+([\d.]+) %", text.split("Which genes matter")[1]).group(1))  # type: ignore[union-attr]  # a miss fails the test
        for name in SPACE.names
    }
    assert shares["mixup"] > 95
    assert "the best of 29 configurations, so a new training will rather give less" in text
    assert "trained once, under one seed" in text
    assert "After 2 of 4 epochs the trials ranked like at their end by 1.00" in text
    assert "no number" in text.split("What went wrong")[1]
    assert "30 GPU hours" in text


def test_the_line_of_the_winner_goes_back_to_the_start_through_fitter_parents() -> None:
    events = [header(4)]
    events += trial(0, 0.1, bred(0, []), SPACE.start)
    events += trial(1, 0.3, {"kind": "random", "parents": []}, SPACE.start | {"mixup": 0.5})
    events += trial(2, 0.4, {"kind": "crossover", "parents": [0, 1]}, SPACE.start | {"mixup": 0.7})
    events += trial(3, 0.2, bred(3, [2]), SPACE.start)
    view = build_view(events)
    assert [each.id for each in ancestry(view)] == [2, 1]
    assert "mixup 0.5 → 0.7" in text_of(view)


def test_a_journal_whose_trials_are_their_own_parents_has_an_end() -> None:
    events = [
        header(2),
        *trial(0, 0.1, bred(1, [0, 1]), SPACE.start),
        *trial(1, 0.2, bred(1, [1]), SPACE.start),
    ]
    assert [each.id for each in ancestry(build_view(events))] == [1]


def test_where_the_start_stays_before_a_luckier_trial_the_page_says_why() -> None:
    events = [header(4), *trial(0, 0.500, bred(0, []), SPACE.start)]
    events += trial(1, 0.501, bred(1, [0]), SPACE.start | {"mixup": 0.5})
    for number, fitness in ((2, 0.3), (3, 0.34)):
        again = {"replicates_of": 2, "run": number - 2} if number > 2 else {}
        events += trial(number, fitness, bred(number, [0]) | again, SPACE.start | {"mixup": 0.9})
    view = build_view(events)
    assert view.best is view.start is not None
    text = text_of(view)
    assert (
        "The start stays: no other configuration's mean is a standard error of the difference above its own."
        in text
    )
    assert "the start configuration still leads" in text
    assert "rather give less" not in text


def test_repeated_trainings_give_the_gain_its_interval() -> None:
    events = [header(4)]
    for number, (first, fitness, mixup) in enumerate(
        [(0, 0.10, 0), (1, 0.30, 0.5), (0, 0.14, 0), (1, 0.26, 0.5)]
    ):
        origin = {"kind": "start" if number == 0 else "replicate", "parents": [], "replicates_of": first}
        events += trial(number, fitness, origin, SPACE.start | {"mixup": mixup})
    text = text_of(build_view(events))
    assert "The winner: Mean of 2 trainings under different seeds: 0.2800 ±" in text
    assert "The start: Mean of 2 trainings under different seeds: 0.1200 ±" in text
    assert "A gain of 0.1600 ±" in text


def test_short_trainings_that_rank_otherwise_are_warned_of() -> None:
    events = [header(12)]
    for number in range(12):
        curve = (1.0 - number / 12, 0.9, 1.0 + number)
        events += trial(number, curve[-1], bred(number, []), SPACE.start | {"mixup": number / 12}, curve)
    assert "That is low or uncertain" in text_of(build_view(events))


def test_the_elite_is_the_best_fifth_and_three_at_least() -> None:
    view = build_view(run())
    assert len(elite(view)) == 6
    assert min(each.fitness for each in elite(view)) >= sorted(each.fitness for each in view.scored)[-6]
    assert len(elite(build_view(run(4)))) == 3
    assert elite(build_view([header(1)])) == []


def test_a_thousand_trials_stay_a_small_file() -> None:
    rng = np.random.default_rng(2)
    events = [header(1000)]
    for number in range(1000):
        config = {"lr0": 10 ** rng.uniform(-5, -1), "mixup": rng.random(), "dead": rng.random()}
        curve = tuple(np.sort(rng.random(30)).tolist())
        events += trial(
            number, curve[-1], bred(number, [int(rng.integers(number))] if number else []), config, curve
        )
    assert len(build_page(build_view(events)).encode()) < 5_000_000
