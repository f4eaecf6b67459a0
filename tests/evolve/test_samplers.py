"""Optuna's samplers behind the ask and tell of our own search."""

import json
import math
from typing import Any

import pytest

from evolve import Gene, SearchError, Space, Trial, build_search, search_from_events
from evolve.samplers import ReplayedSearch, SamplerSearch, build_sampler

SPACE = Space(
    [
        Gene("lr0", 1e-4, 0.1, start=0.01, log=True),
        Gene("n", 2, 9, start=3, integer=True),
        Gene("optimizer", choices=("sgd", "adamw"), start="adamw"),
        Gene("momentum", 0.5, 0.9, start=0.8, when=("optimizer", ("sgd",))),
    ]
)
NAMES = ("random", "tpe", "cmaes", "gp", "qmc")


def worth(trial: Trial) -> float:
    return -abs(math.log10(float(trial.config["lr0"])) + 3) - 0.1 * float(trial.config["n"])


def play(search: Any, asks: int) -> None:
    """Ask with two open, some failing."""
    for number in range(asks):
        search.ask()
        if number >= 2:
            search.tell(number - 2, None if number % 7 == 3 else worth(search.trials[number - 2]))


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_restored_from_its_state_goes_on_as_the_unbroken_one(name: str) -> None:
    search = build_sampler(SPACE, 3, name)
    play(search, 14)
    restored = type(search).from_state(json.loads(json.dumps(search.state())))
    assert restored.state() == search.state()
    assert [restored.ask() for _ in range(2)] == [search.ask() for _ in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_the_start_comes_first_and_resting_genes_stay_at_their_start(name: str) -> None:
    search = build_sampler(SPACE, 0, name)
    play(search, 13)
    assert search.trials[0].config == SPACE.start
    for trial in search.trials:
        assert SPACE.check(trial.config) == trial.config
        assert trial.config["optimizer"] == "sgd" or trial.config["momentum"] == 0.8


def test_a_journal_that_names_a_sampler_is_replayed_with_it() -> None:
    search = build_search(SPACE, 5, {"sampler": "cmaes"})
    assert isinstance(search, ReplayedSearch)
    events: list[dict[str, Any]] = [
        {"event": "run", "space": SPACE.to_dict(), "seed": 5, "search": search.settings_dict()}
    ]
    for _ in range(6):
        trial = search.ask()
        events.append({"event": "ask", "trial": trial.id, "config": trial.config, "origin": trial.origin})
        search.tell(trial.id, worth(trial))
        events.append({"event": "tell", "trial": trial.id, "status": "finished", "fitness": worth(trial)})
    assert search_from_events(events).ask() == search.ask()


def test_a_replay_that_another_version_of_a_sampler_cannot_follow_is_refused() -> None:
    search = ReplayedSearch(SPACE)
    search.adopt(Trial(0, SPACE.start))
    with pytest.raises(SearchError, match="trial 1: the sampler cmaes proposes"):
        search.adopt(Trial(1, {**SPACE.start, "n": 9, "lr0": 0.0567}))


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match="sampler 'tbe' is unknown; did you mean 'tpe'"):
        SamplerSearch(SPACE, 0, "tbe")


def test_a_class_of_optuna_can_be_named_itself() -> None:
    search = SamplerSearch(SPACE, 0, "NSGAIISampler")
    play(search, 4)
    assert search.trials[3].origin["kind"] == "NSGAIISampler"
