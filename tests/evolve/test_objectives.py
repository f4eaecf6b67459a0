"""Several objectives: the front and what is picked from it, and a search that goes by all of them."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evolve import Gene, Space
from evolve.costs import check_objectives, costs_of, gains
from evolve.gene import EvolveError
from evolve.journal import RunState, fold
from evolve.objectives import front, hypervolume, pick
from evolve.pareto import dominated
from evolve.pareto_search import ParetoSearch
from evolve.report import build_page
from evolve.report_view import build_view
from evolve.search import build_search, search_from_events
from evolve.search_settings import SearchError

SPACE = Space([Gene("width", 0, 1, start=0.5), Gene("lr0", 1e-4, 1e-1, start=1e-2, log=True)])
NAMES = ("fitness", "latency", "parameters")


def events(
    *rows: tuple[float | None, dict[str, Any]], names: tuple[str, ...] = NAMES
) -> list[dict[str, Any]]:
    """A journal whose trials ended with these fitnesses and costs."""
    search = {"objectives": list(names)} if names else {}
    header = {"name": "several", "trials": len(rows), "seed": 0, "space": SPACE.to_dict(), "search": search}
    found = [{"event": "run", "version": 1, "time": 0.0, "settings": {}, "resources": {}, **header}]
    for number, (fitness, costs) in enumerate(rows):
        origin = {"kind": "start" if number == 0 else "mutation", "parents": []}
        found.append({"event": "ask", "time": 1.0, "trial": number, "config": SPACE.start, "origin": origin})
        status = "failed" if fitness is None else "finished"
        end = {"status": status, "fitness": fitness, "result": {"costs": costs}}
        found.append({"event": "tell", "time": 2.0 + number, "trial": number, **end})
    return found


def run(*rows: tuple[float | None, dict[str, Any]], names: tuple[str, ...] = NAMES) -> RunState:
    return fold(events(*rows, names=names))


def cost(latency: float, parameters: float = 1.0) -> dict[str, float]:
    return {"latency": latency, "parameters": parameters, "latency_spread": 0.1}


def test_the_front_holds_what_no_trial_beats_the_fittest_first() -> None:
    state = run((0.5, cost(20)), (0.4, cost(10)), (0.4, cost(11)), (0.3, cost(30)), (None, {}), (0.9, {}))
    assert [(each.trial.id, each.values["latency"]) for each in front(state)] == [(0, 20), (1, 10)]
    assert front(run((0.5, cost(20)), names=())) == []
    assert front(run((None, {}))) == []


def test_the_knee_is_nearest_to_the_best_of_all_and_others_are_picked_by_name_and_number() -> None:
    state = run((0.9, cost(100)), (0.8, cost(20)), (0.1, cost(10)), (0.05, cost(50)))
    assert pick(state, "knee").id == 1
    assert pick(state, "latency").id == 2
    assert pick(state, "fitness").id == 0
    assert pick(state, "trial:3").id == 3


@pytest.mark.parametrize("how", ["trial:9", "trial:x", "size", "trial:4"])
def test_what_cannot_be_picked_is_refused(how: str) -> None:
    with pytest.raises(EvolveError):
        pick(run((0.9, cost(1)), (0.8, cost(2)), (0.1, cost(3)), (0.1, cost(4)), (None, {})), how)
    with pytest.raises(EvolveError, match="no front"):
        pick(run((0.9, {})), "knee")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("fitness",), "and others"),
        (("latency", "parameters"), "must be fitness and others"),
        (("fitness", "latency", "latency"), "once"),
        (("fitness", "lateness"), "latency"),
        ((), "none"),
    ],
)
def test_objectives_that_cannot_be_are_refused(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(EvolveError, match=why):
        check_objectives(names)
    with pytest.raises(SearchError, match=why):
        ParetoSearch(SPACE, objectives=names)


def test_fitness_comes_first_and_what_is_no_number_is_no_cost() -> None:
    assert check_objectives(("latency", "fitness")) == ("fitness", "latency")
    assert costs_of({"costs": {"latency": 3, "parameters": "many"}}) == {"latency": 3.0}
    assert costs_of({"costs": None}) == {}
    assert gains(0.5, {"latency": 2.0}, ("fitness", "latency")) == [0.5, -2.0]
    assert gains(0.5, {"latency": math.nan}, ("fitness", "latency")) is None
    assert gains(None, {"latency": 2.0}, ("fitness", "latency")) is None


@given(
    arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 3)), elements=st.floats(-1, 1, width=16))
)
def test_the_volume_is_what_a_fine_grid_counts(table: np.ndarray) -> None:
    count = table.shape[1]
    axes = np.meshgrid(*[np.linspace(-1, 1, 41)[:-1] + 0.025] * count, indexing="ij")
    cells = np.stack([axis.ravel() for axis in axes], axis=1)
    inside = (cells[:, None] < table[None]).all(axis=2).any(axis=1) if len(table) else np.zeros(len(cells))
    volume = hypervolume(table, -np.ones(count))
    assert volume == pytest.approx(inside.mean() * 2**count, abs=0.051 * 2**count * count)


def live(search: ParetoSearch, trials: int) -> list[dict[str, Any]]:
    """Run a search on a trade-off between fitness and latency: the journal's asks and tells."""
    found = []
    for _ in range(trials):
        trial = search.ask()
        width = float(trial.config["width"])
        fitness = None if trial.id == 3 else 1 - (1 - width) ** 2 - (math.log10(trial.config["lr0"]) + 2) ** 2
        costs = {"latency": 1 + 9 * width}
        found.append({"event": "ask", "trial": trial.id, "config": trial.config, "origin": trial.origin})
        status = "failed" if fitness is None else "finished"
        end = {"status": status, "fitness": fitness, "result": {"costs": costs}}
        found.append({"event": "tell", "trial": trial.id, **end})
        search.measured(trial.id, costs)
        search.tell(trial.id, fitness)
    return found


def test_a_search_of_two_objectives_spreads_over_the_front() -> None:
    search = ParetoSearch(SPACE, seed=1, objectives=("fitness", "latency"))
    told = live(search, 45)
    rows = np.array(
        [
            [event["fitness"], -event["result"]["costs"]["latency"]]
            for event in told
            if event["event"] == "tell" and event["fitness"] is not None
        ]
    )
    best = rows[~dominated(rows)]
    assert np.ptp(best[:, 1]) > 6  # of 9 in all
    assert len(best) > 12
    # The true front has fitness 1 - (1 - width)^2 at each latency.
    missed = 1 - (1 - (-best[:, 1] - 1) / 9) ** 2 - best[:, 0]
    assert np.median(missed) < 0.02


def test_a_search_replayed_or_restored_goes_on_as_the_unbroken_one() -> None:
    unbroken = ParetoSearch(SPACE, seed=4, objectives=("fitness", "latency"))
    told = live(unbroken, 82)  # until kernels are kept from one ask to the next
    settings = unbroken.settings_dict()
    header = {"event": "run", "seed": 4, "space": SPACE.to_dict(), "search": json.loads(json.dumps(settings))}
    replayed = search_from_events([header, *json.loads(json.dumps(told))])
    restored = ParetoSearch.from_state(json.loads(json.dumps(unbroken.state())))
    assert isinstance(replayed, ParetoSearch)
    for _ in range(3):
        expected = unbroken.ask()
        assert replayed.ask() == restored.ask() == expected


def test_the_header_says_which_search_it_is() -> None:
    search = build_search(SPACE, 0, {"objectives": ["fitness", "parameters"]})
    assert isinstance(search, ParetoSearch)
    assert search.objectives == ("fitness", "parameters")


def test_the_report_shows_fitness_against_each_cost_and_the_front() -> None:
    rows = [(0.1 * number, cost(10.0 + number**2, 1e6 * (1 + number))) for number in range(8)]
    page = build_page(build_view(events(*rows, (None, {}), (0.2, cost(90, 9e9)))))
    assert "What fitness costs" in page
    assert "8 of 9 trials are beaten by no other" in page
    assert "Fitness against latency" in page
    assert "Fitness against parameters" in page
    assert "latency, ms" in page
    assert "What fitness costs" not in build_page(build_view(events(*rows, names=())))
