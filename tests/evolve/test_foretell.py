"""What is believed of trials that were stopped: right on average, honest in its width, and never the best."""

import json
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from evolve import Gene, GeneticSearch, SearchError, SearchSettings, Space, kernel, search_from_events
from evolve.foretell import foretell, foretell_from
from evolve.ladder import Ladder
from evolve.samplers import build_sampler

SPACE = Space([Gene("x", 0, 1, start=0.3), Gene("y", 0, 1, start=0.3)])


def climbs(count: int, noise: float, seed: int = 0) -> tuple[list[list[float]], list[list[float]]]:
    """Curves of three rungs as a ladder cuts them, and the same ones whole."""
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0.2, 0.8, count)
    whole = [
        np.maximum.accumulate(height * np.array([0.4, 0.7, 1.0]) + noise * rng.normal(size=3)).tolist()
        for height in heights
    ]
    ladder, cut = Ladder((1, 3, 9)), []
    at: list[list[float]] = [[], []]
    went_on: list[list[bool]] = [[], []]
    for curve in whole:
        reached = 3
        for rung in range(2):
            bar = ladder.bar(at[rung], went_on[rung], curve[rung])
            at[rung].append(curve[rung])
            went_on[rung].append(bar is None or curve[rung] >= bar)
            if not went_on[rung][-1]:
                reached = rung + 1
                break
        cut.append(curve[:reached])
    return cut, whole


def test_what_is_foretold_is_right_on_average_and_its_deviation_is_honest() -> None:
    misses = []
    for seed in range(40):
        cut, whole = climbs(60, 0.015, seed)
        stopped = [place for place, curve in enumerate(cut) if len(curve) < 3]
        assert len(stopped) > 30
        for place, each in foretell(dict(enumerate(cut)), stopped).items():
            misses.append((whole[place][-1] - each.mean) / each.deviation)
    assert abs(np.mean(misses)) < 0.5
    assert np.mean(np.abs(misses) < 1.96) > 0.85
    assert 0.4 < np.std(misses) < 1.4


def test_genes_tell_which_trials_are_slow_at_first_and_good_in_the_end() -> None:
    by_lines, by_genes, in_deviations = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        genes = dict(enumerate(rng.random((60, 4))))
        # The first gene makes a trial good, the second only fast.
        early = {number: float(0.3 + 0.2 * gene[0] + 0.2 * gene[1]) for number, gene in genes.items()}
        whole = {number: float(0.5 + 0.4 * gene[0] + 0.02 * rng.normal()) for number, gene in genes.items()}
        stopped = sorted(early, key=lambda number: early[number])[:40]
        curves = {
            number: [early[number]] if number in stopped else [early[number], whole[number]]
            for number in early
        }
        lines, told = foretell(curves, stopped), foretell(curves, stopped, genes)
        by_lines += [lines[number].mean - whole[number] for number in stopped]
        by_genes += [told[number].mean - whole[number] for number in stopped]
        in_deviations += [(told[number].mean - whole[number]) / told[number].deviation for number in stopped]
    assert np.std(by_genes) < 0.7 * np.std(by_lines)
    assert np.mean(np.abs(in_deviations) < 1.96) > 0.85


def misled(alike: int) -> tuple[list[float], list[float]]:
    """Scatters of trials stopped where others went on, and of some alike whose kind nobody has seen later."""
    rng = np.random.default_rng(0)
    genes = {number: np.array([0.3 * rng.random(), 0.3 * rng.random()]) for number in range(40)}
    # What a trial ends above its line follows from its genes, smoothly.
    curves = {
        number: [0.3 + 0.2 * gene[1], 0.5 + 0.2 * gene[1] + 0.5 * gene[0]] for number, gene in genes.items()
    }
    for number in range(30, 40):
        curves[number] = curves[number][:1]
    for number in range(40, 40 + alike):
        genes[number] = np.array([0.95, 0.95]) + 0.01 * rng.random(2)
        curves[number] = [0.32]
    found = foretell(curves, [number for number, curve in curves.items() if len(curve) == 1], genes)
    return [found[number].scatter for number in range(30, 40)], [
        found[number].scatter for number in range(40, 40 + alike)
    ]


def test_many_stopped_trials_of_genes_that_nobody_saw_later_are_no_surer_together_than_one() -> None:
    near, one = misled(1)
    assert one[0] > 3 * max(near)
    _, many = misled(25)
    together = 1 / np.sqrt(sum(1 / each**2 for each in many))
    assert together == pytest.approx(one[0], rel=0.2)


def test_from_a_rung_the_doubt_is_largest_where_no_trial_of_such_genes_went_on() -> None:
    rng = np.random.default_rng(0)
    genes = {number: np.array([0.3 * rng.random()]) for number in range(30)} | {30: np.array([1.0])}
    curves = {number: [0.3, 0.5 + 0.5 * gene[0]] for number, gene in genes.items()}
    curves[30] = [0.3]
    found = foretell_from(curves, genes, 0)
    assert found[30][1] > 3 * max(found[number][1] for number in range(30))
    assert foretell_from({0: [0.3], 1: [0.2]}, genes, 0) == {0: (0.3, 0.0), 1: (0.2, 0.0)}


def test_genes_are_fitted_anew_once_another_trial_has_gone_on_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = Mock(wraps=kernel.fit_kernel)
    monkeypatch.setattr(kernel, "fit_kernel", fits)
    rng = np.random.default_rng(41)
    genes = {number: rng.random(2) for number in range(14)}
    curves = {number: [0.3, 0.5 + 0.5 * gene[0]] for number, gene in genes.items()}
    curves |= {number: [0.2] for number in (12, 13)}
    stopped = {12}
    before = foretell({number: curves[number] for number in range(13)}, stopped, genes)
    assert fits.call_count == 1
    after = foretell(curves, {12, 13}, genes)  # one more that was stopped
    foretell_from(curves, genes, 0)
    assert fits.call_count == 1
    assert after[12].mean == pytest.approx(before[12].mean, rel=1e-12)
    curves[13] = [0.3, 0.9]
    assert foretell(curves, stopped, genes)[12].mean != after[12].mean
    assert fits.call_count == 2


def test_few_trials_leave_the_genes_unasked() -> None:
    curves = {number: [0.1 + 0.01 * number, 0.2 + 0.02 * number] for number in range(5)} | {9: [0.12]}
    genes = {number: np.array([number / 10]) for number in curves}
    assert foretell(curves, [9], genes) == foretell(curves, [9])


def test_the_uncertainty_grows_away_from_those_that_went_on_and_with_the_rungs_left() -> None:
    cut, _ = climbs(60, 0.03)
    places = [place for place, curve in enumerate(cut) if len(curve) < 3]
    found = foretell(dict(enumerate(cut)), places)
    first = sorted((place for place in places if len(cut[place]) == 1), key=lambda place: cut[place][0])
    assert found[first[0]].deviation > found[first[-1]].deviation
    second = [place for place in places if len(cut[place]) == 2]
    assert np.mean([found[place].deviation for place in first]) > max(
        found[place].deviation for place in second
    )


def test_before_anyone_has_gone_on_a_stopped_trial_is_worth_what_it_reached_and_little_is_sure() -> None:
    each = foretell({0: [0.1], 1: [0.3]}, [0])[0]
    assert each.mean == pytest.approx(0.1)
    assert each.deviation > 0.05
    assert each.scatter < each.deviation  # it will climb as all others do


def test_the_best_so_far_never_falls() -> None:
    found = foretell({0: [0.5, 0.6, 0.7], 1: [0.4, 0.9, 1.0], 2: [0.9]}, [2])
    assert found[2].mean >= 0.9


def filled(search: GeneticSearch, trials: int = 30) -> GeneticSearch:
    """Every other trial is stopped at the first of two rungs."""
    for number in range(trials):
        trial = search.ask()
        height = 1 - (trial.config["x"] - 0.8) ** 2 - (trial.config["y"] - 0.6) ** 2
        if number % 2:
            search.tell(trial.id, 0.5 * height, [0.5 * height], stopped=True)
        else:
            search.tell(trial.id, height, [0.5 * height, height])
    return search


@pytest.mark.parametrize("kind", ["genetic", "tpe", "cmaes"])
def test_a_search_goes_by_what_is_foretold_and_never_takes_a_stopped_trial_for_the_best(kind: str) -> None:
    search = GeneticSearch(SPACE, seed=1) if kind == "genetic" else build_sampler(SPACE, 1, kind)
    filled(search)
    best = search.best()
    assert best is not None
    assert best.trial.id % 2 == 0
    restored = type(search).from_state(json.loads(json.dumps(search.state())))
    assert restored.state() == search.state()
    assert restored.ask() == search.ask()


def climb_at_once(search: GeneticSearch, asked: int) -> list[dict[str, Any]]:
    """Eight trials at once climb two rungs, and the poorer half is stopped at each: the journal's events."""
    rng = np.random.default_rng(7)
    found: list[dict[str, Any]] = [
        {"event": "run", "seed": search.seed, "space": SPACE.to_dict(), "search": search.settings_dict()}
    ]
    at: dict[int, list[float]] = {}
    bars: tuple[list[float], list[float]] = [], []  # fitnesses at each rung
    while len(search.trials) < asked or at:
        while len(at) < 8 and len(search.trials) < asked:
            trial = search.ask()
            at[trial.id] = []
            found.append({"event": "ask", "trial": trial.id, "config": trial.config, "origin": trial.origin})
        number = int(rng.choice(list(at)))
        config, curve = search.trials[number].config, at[number]
        height = 1 - (config["x"] - 0.8) ** 2 - (config["y"] - 0.6) ** 2 + 0.02 * rng.normal()
        curve.append(max([height * (0.4, 0.7, 1.0)[len(curve)], *curve]))
        stopped = False
        if len(curve) < 3:
            bar = bars[len(curve) - 1]
            bar.append(curve[-1])
            stopped = curve[-1] < np.median(bar)
            if not stopped:
                search.climb(number, curve[-1])
                found.append({"event": "rung", "trial": number, "fitness": curve[-1], "goes_on": True})
                continue
        search.tell(number, curve[-1], curve, stopped=stopped)
        status, fitness = ("stopped", None) if stopped else ("finished", curve[-1])
        end = {"status": status, "fitness": fitness, "curve": at.pop(number)}
        found.append({"event": "tell", "trial": number, **end})
    return found


def test_a_search_whose_trials_climb_at_once_is_replayed_as_it_was_at_every_ask() -> None:
    """A driver that died at any moment goes on as the unbroken one would, whatever its kernels were fitted to."""
    search = GeneticSearch(SPACE, seed=6, settings=SearchSettings(replicas=1))
    found = json.loads(json.dumps(climb_at_once(search, 70)))
    asks = [place for place, event in enumerate(found) if event["event"] == "ask"]
    for place in asks[20::4]:
        replayed = search_from_events(found[:place])
        trial = replayed.ask()
        assert (trial.id, trial.config) == (found[place]["trial"], found[place]["config"])
        assert type(replayed).from_state(json.loads(json.dumps(replayed.state()))).ask() == replayed.ask()


def test_stopped_trials_lead_the_search_to_where_their_curves_are_high() -> None:
    search = filled(GeneticSearch(SPACE, seed=3), 40)
    late = [trial.config for trial in search.trials[30:]]
    assert np.median([abs(config["x"] - 0.8) for config in late]) < 0.15


def test_a_stopped_trial_without_its_curve_is_refused() -> None:
    search = GeneticSearch(SPACE)
    search.ask()
    with pytest.raises(SearchError, match="must be told with its curve"):
        search.tell(0, 0.3, stopped=True)
