"""The genetic search: what ask and tell promise, whatever their order."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve import (
    Gene,
    GeneticSearch,
    SearchError,
    SearchSettings,
    Space,
    SpaceError,
    Trial,
    search_from_events,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SPACE = Space(
    [
        Gene("lr0", 1e-5, 1e-1, start=0.01, log=True),
        Gene("mosaic", 0, 1, start=1),
        Gene("mixup", 0, 1, start=0),
        Gene("anchors", 2, 10, start=3, integer=True),
    ]
)
PLAIN = SearchSettings(children=0, replicas=1)
OPTIMUM = np.array([0.6, 0.7, 0.3, 0.5])


def value(trial: Trial, space: Space = SPACE) -> float:
    """A bowl whose optimum is away from the start: 1 at best."""
    return 1.0 - float(np.sum((space.encode(trial.config) - OPTIMUM[: len(space)]) ** 2))


def run(search: GeneticSearch, trials: int) -> GeneticSearch:
    """Ask and tell one after the other."""
    for _ in range(trials):
        trial = search.ask()
        search.tell(trial.id, value(trial))
    return search


# A history: each step asks (None), or tells one of the open trials (which of them, its fitness).
fitnesses = st.none() | st.just(math.nan) | st.just(math.inf) | st.floats(0, 1)
steps = st.lists(st.none() | st.tuples(st.integers(0, 5), fitnesses), max_size=60)


def play(search: GeneticSearch, history: list[tuple[int, float | None] | None]) -> None:
    """Apply a history to a search; tells without an open trial are left out."""
    for step in history:
        if step is None:
            search.ask()
        elif search.open:
            which, fitness = step
            search.tell(search.open[which % len(search.open)].id, fitness)


# --- what is proposed ----------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_start() -> None:
    trial = GeneticSearch(SPACE, seed=5).ask()
    assert trial == Trial(0, SPACE.start, {"kind": "start", "parents": []})


@given(st.integers(0, 2**63), steps)
@settings(max_examples=15, deadline=None)
def test_proposals_are_in_the_space_new_and_of_known_parents(seed: int, history: list[Any]) -> None:
    search = GeneticSearch(SPACE, seed=seed)
    play(search, history)
    assert [trial.id for trial in search.trials] == list(range(len(search.trials)))
    for trial in search.trials:
        assert SPACE.check(trial.config) == trial.config
        assert list(trial.config) == list(SPACE.names)
        assert all(parent < trial.id for parent in trial.origin["parents"])
        assert json.loads(json.dumps(asdict(trial))) == asdict(trial)
    first = [trial for trial in search.trials if trial.replicates_of is None]
    assert len({tuple(trial.config.values()) for trial in first}) == len(first)


def test_a_gene_that_starts_at_zero_leaves_it() -> None:
    search = run(GeneticSearch(SPACE), 40)
    best = search.best()
    assert best is not None
    assert best.trial.config["mixup"] > 0.05


def test_few_mutants_of_a_gene_at_its_bound_stay_upon_it() -> None:
    search = run(GeneticSearch(SPACE), 100)
    # A trial that inherits the bound from its parents is no mutant of it.
    values = [trial.config["mosaic"] for trial in search.trials]
    # One that was led to the bound was not folded back from it either: it is where the process sees the best.
    moved = [
        v != values[(t.origin["parents"] or [0])[0]] and "grown" not in t.origin
        for v, t in zip(values, search.trials, strict=True)
    ]
    assert sum(moved) > 30
    assert sum(v in (0.0, 1.0) for v, m in zip(values, moved, strict=True) if m) <= 1


def test_all_kinds_of_children_are_bred() -> None:
    kinds = {trial.origin["kind"] for trial in run(GeneticSearch(SPACE), 100).trials}
    assert kinds - {"replicate"} == {"start", "random", "mutation", "crossover", "recombination"}
    plain = run(GeneticSearch(SPACE, settings=PLAIN), 100)
    assert {t.origin["kind"] for t in plain.trials} == {
        "start",
        "random",
        "mutation",
        "crossover",
        "recombination",
    }


def test_a_start_that_is_the_optimum_is_exported_whatever_noise_flatters() -> None:
    space = Space([Gene(f"g{number}", 0, 1, start=0.5) for number in range(8)])
    kept, lost = 0, []
    for seed in range(4):
        search = GeneticSearch(space, seed=seed)
        noise = np.random.default_rng(seed).normal(0, 0.02, 64)
        worth = []
        for luck in noise:
            trial = search.ask()
            worth.append(math.exp(-float(np.sum((space.encode(trial.config) - 0.5) ** 2))))
            search.tell(trial.id, worth[-1] + luck)
        best = search.best()
        assert best is not None
        kept += best.trial.id == 0
        lost.append(1 - worth[best.trial.id])
    # Last digits of a machine decide which seeds keep it; one that is left is lost to something nearly as good.
    assert kept >= 2
    assert np.mean(lost) < 0.01


def test_the_noise_is_looked_at_early_however_many_trials_are_open() -> None:
    search = GeneticSearch(SPACE)
    for asked in range(40):
        search.ask()
        if asked >= 15:
            search.tell(asked - 15, value(search.trials[asked - 15]))
    assert any(trial.replicates_of is not None for trial in search.trials)


def test_the_search_comes_nearer_to_the_optimum_than_its_start_and_than_random_draws() -> None:
    rng = np.random.default_rng(0)
    for seed in range(5):
        best = run(GeneticSearch(SPACE, seed=seed), 80).best()
        draws = max(value(Trial(0, SPACE.decode(rng.random(4)))) for _ in range(80))
        assert best is not None
        assert best.fitness > max(draws, 0.97)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_failed_trial_never_breeds(bad: float | None) -> None:
    search = GeneticSearch(SPACE, seed=3)
    failed = set()
    for number in range(60):
        trial = search.ask()
        search.tell(trial.id, bad if number % 3 == 1 else value(trial))
        failed |= {trial.id} if number % 3 == 1 else set()
    assert len(failed) == 20
    for trial in search.trials[search.settings.initial :]:
        assert not failed & set(trial.origin["parents"])


def test_children_keep_away_from_where_trials_fail() -> None:
    """Half the space fails, and the best lies at the very edge: a careless search would step over it each time."""
    space = Space([Gene("a", 0, 1, start=0.45), Gene("b", 0, 1, start=0.5)])
    failures = 0
    for seed in range(5):
        search = GeneticSearch(space, seed=seed)
        for _ in range(60):
            trial = search.ask()
            fails = trial.config["a"] > 0.5
            failures += fails and trial.id >= 20
            search.tell(trial.id, None if fails else trial.config["a"])
    assert failures / 200 < 0.6  # without a thought of failures it is 0.98


def test_a_search_whose_trials_all_fail_goes_on_over_the_whole_space() -> None:
    search = GeneticSearch(SPACE)
    for _ in range(60):
        search.tell(search.ask().id, None)
    assert search.best() is None
    rates = [SPACE.encode(trial.config)[0] for trial in search.trials]
    assert min(rates) < 0.1
    assert max(rates) > 0.9


def test_open_trials_are_apart() -> None:
    space = Space([Gene("a", 0, 1, start=0.6)])
    search = GeneticSearch(space, settings=SearchSettings(spacing=0.02))
    for _ in range(40):
        trial = search.ask()
        search.tell(trial.id, value(trial, space))
    batch = sorted(float(space.encode(search.ask().config)[0]) for _ in range(4))
    assert np.diff(batch).min() >= 0.02


def test_a_small_space_is_used_up_to_its_last_configuration_and_then_says_so() -> None:
    space = Space([Gene("a", 0, 4, integer=True), Gene("b", 1, 3, integer=True)])
    search = GeneticSearch(space)
    for _ in range(15):
        trial = search.ask()
        search.tell(trial.id, -float(trial.config["a"]))
    assert len({tuple(trial.config.values()) for trial in search.trials}) == 15
    with pytest.raises(SearchError, match="all 15 configurations of the space were tried"):
        search.ask()


def steps_on_a_bowl(genes: int, seed: int, spans: tuple[range, ...]) -> list[float]:
    """Of each span of trials, the median of how far a child lies from its nearest parent; the bowl has no noise."""
    space = Space([Gene(f"g{i}", 0, 1, start=0.9) for i in range(genes)])
    search = GeneticSearch(space, seed=seed)
    for _ in range(max(span.stop for span in spans)):
        trial = search.ask()
        search.tell(trial.id, 1.0 - float(np.sum((space.encode(trial.config) - 0.4) ** 2)))
    gaps = {
        trial.id: min(
            float(np.abs(space.encode(trial.config) - space.encode(search.trials[parent].config)).max())
            for parent in trial.origin["parents"]
        )
        for trial in search.trials
        if trial.origin["parents"]
    }
    return [float(np.median([gaps[number] for number in span if number in gaps])) for span in spans]


def test_steps_shrink_as_the_search_closes_in() -> None:
    first, second = steps_on_a_bowl(12, 1, (range(12, 45), range(45, 90)))
    assert second < 0.5 * first


def test_steps_grow_again_when_a_look_beside_the_leader_would_tell_no_more() -> None:
    """Six genes: after 48 trials the leader is within 0.0001 of the optimum."""
    closing, found = steps_on_a_bowl(6, 1, (range(30, 48), range(48, 66)))
    assert closing < 0.01
    assert found > 3 * closing


# --- telling -------------------------------------------------------------------------------------------------------


def test_the_best_is_the_fittest_told_and_the_earlier_of_equals() -> None:
    search = GeneticSearch(SPACE)
    assert search.best() is None
    for _ in range(4):
        search.ask()
    for trial, fitness in ((3, 0.4), (2, 0.4), (0, math.inf), (1, 0.1)):
        search.tell(trial, fitness)
    best = search.best()
    assert best is not None
    assert (best.trial.id, best.fitness) == (2, 0.4)


def test_a_trial_that_was_not_asked_cannot_be_told() -> None:
    search = GeneticSearch(SPACE)
    search.ask()
    for trial in (1, -1):
        with pytest.raises(SearchError, match=f"must be asked before it is told, but trial {trial} was not"):
            search.tell(trial, 0.5)


def test_a_trial_is_told_once() -> None:
    search = GeneticSearch(SPACE)
    search.tell(search.ask().id, None)
    with pytest.raises(SearchError, match="trial 0 was told None before"):
        search.tell(0, 0.5)


def test_trials_are_adopted_in_order_and_of_this_space() -> None:
    search = GeneticSearch(SPACE)
    with pytest.raises(SearchError, match="must have the id 0, but got 1"):
        search.adopt(Trial(1, SPACE.start))
    with pytest.raises(SpaceError, match="gene 'lr' is unknown; did you mean 'lr0'"):
        search.adopt(Trial(0, {"lr": 0.01}))
    assert search.trials == ()


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SearchError, match="seed must be >= 0, but got -1"):
        GeneticSearch(SPACE, seed=-1)


# --- going on exactly ----------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), steps, steps)
@settings(max_examples=15, deadline=None)
def test_a_restored_search_goes_on_as_the_unbroken_one(
    seed: int, before: list[Any], after: list[Any]
) -> None:
    unbroken = GeneticSearch(SPACE, seed=seed, settings=SearchSettings(initial=4))
    play(unbroken, before)
    state = json.loads(json.dumps(unbroken.state(), allow_nan=False))
    restored = GeneticSearch.from_state(state)
    assert restored.state() == unbroken.state()
    play(unbroken, after)
    play(restored, after)
    assert restored.ask() == unbroken.ask()
    assert restored.state() == unbroken.state()


@given(st.integers(0, 1000), steps)
@settings(max_examples=15, deadline=None)
def test_a_search_replayed_from_its_journal_goes_on_as_the_unbroken_one(
    seed: int, history: list[Any]
) -> None:
    search = GeneticSearch(SPACE, seed=seed)
    run_event = {"event": "run", "space": SPACE.to_dict(), "seed": seed, "search": search.settings.to_dict()}
    events: list[dict[str, Any]] = [run_event, {"event": "resume", "trials": 9}]
    for step in history:
        if step is None:
            trial = search.ask()
            events.append({"event": "ask", "trial": trial.id, "config": trial.config, "origin": trial.origin})
            events.append({"event": "report", "trial": trial.id})
        elif search.open:
            trial, fitness = search.open[step[0] % len(search.open)], step[1]
            search.tell(trial.id, fitness)
            good = fitness is not None and math.isfinite(fitness)
            status = {"status": "finished" if good else "failed", "fitness": fitness if good else None}
            events.append({"event": "tell", "trial": trial.id, **status})
    replayed = search_from_events(json.loads(json.dumps(events)))
    assert replayed.state() == search.state()
    assert replayed.ask() == search.ask()


def test_a_journal_without_a_run_cannot_be_replayed() -> None:
    with pytest.raises(SearchError, match="must begin with a run event, but it is empty"):
        search_from_events([])
    with pytest.raises(SearchError, match="must begin with a run event, but got 'stop'"):
        search_from_events([{"event": "stop"}])


def test_the_proposal_does_not_depend_on_the_order_of_the_tells() -> None:
    first, second = run(GeneticSearch(SPACE), 30), run(GeneticSearch(SPACE), 30)
    for search, order in ((first, range(30, 50)), (second, reversed(range(30, 50)))):
        for _ in range(20):
            search.ask()
        for number in order:
            search.tell(number, None if number % 5 == 0 else 1.0 if number < 35 else 0.0)
    assert [first.ask() for _ in range(9)] == [second.ask() for _ in range(9)]


def test_what_is_believed_does_not_depend_on_when_it_was_last_asked() -> None:
    """A search that was asked all along and one that only ever adopted the same trials fit the same kernels."""
    asked = run(GeneticSearch(SPACE, seed=2), 61)
    adopted = GeneticSearch(SPACE, seed=2)
    for trial in asked.trials:
        adopted.adopt(trial)
        adopted.tell(trial.id, value(trial))
    assert [asked.ask() for _ in range(3)] == [adopted.ask() for _ in range(3)]


def test_both_minds_take_part_and_what_was_led_uphill_says_so() -> None:
    search = run(GeneticSearch(SPACE), 60)
    grown = [trial.id for trial in search.trials if trial.origin.get("grown")]
    assert grown
    assert {number % 2 for number in grown} == {1}


def test_the_leader_that_would_be_exported_is_tried_again_under_noise() -> None:
    rng = np.random.default_rng(3)
    search = GeneticSearch(SPACE, seed=1)
    for _ in range(90):
        trial = search.ask()
        search.tell(trial.id, value(trial) + 0.2 * rng.normal())
    assert search.standings()[0].runs >= 2


def test_looking_at_a_search_does_not_move_it() -> None:
    quiet, watched = run(GeneticSearch(SPACE), 15), run(GeneticSearch(SPACE), 15)
    for _ in range(3):
        watched.best(), watched.state(), watched.open, watched.trials
    assert quiet.ask() == watched.ask()


def test_seeds_differ() -> None:
    assert run(GeneticSearch(SPACE, seed=1), 5).trials != run(GeneticSearch(SPACE, seed=2), 5).trials


CODE = """
import json
from evolve import Gene, GeneticSearch, Space
space = Space([Gene("lr0", 1e-5, 1e-1, start=0.01, log=True), Gene("mixup", 0, 1, start=0)])
search = GeneticSearch(space, seed=7)
for number in range(40):
    trial = search.ask()
    search.tell(trial.id, None if number % 7 == 3 else -abs(trial.config["mixup"] - 0.4) - trial.config["lr0"])
print(json.dumps(search.state()))
"""


def test_the_same_seed_makes_the_same_search_in_every_process() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", CODE],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())["trials"]) == 40


def test_a_state_of_another_version_is_refused() -> None:
    state = {**GeneticSearch(SPACE).state(), "version": 99}
    with pytest.raises(SearchError, match="version must be 1, but got 99"):
        GeneticSearch.from_state(state)


def test_a_thousand_plain_trials_are_asked_fast_enough_for_no_op_trials() -> None:
    import time

    search = run(GeneticSearch(SPACE, settings=PLAIN), 900)
    begin = time.process_time()
    run(search, 100)
    assert time.process_time() - begin < 3.0


# --- settings ------------------------------------------------------------------------------------------------------


def test_settings_survive_json_and_leave_out_defaults() -> None:
    chosen = replace(SearchSettings(), parents=5, step=0.1)
    assert SearchSettings.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    assert SearchSettings.from_dict({}) == SearchSettings()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SearchError, match=r"search setting 'parent' is unknown; did you mean 'parents'\?"):
        SearchSettings.from_dict({"parent": 5})


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": 0}, {"initial": 2.5}, {"around": 1.1}, {"parents": 1}, {"pressure": -1.0}, {"mutation": 2.0},
        {"mutation": 0.7, "crossover": 0.5}, {"extension": -0.1}, {"expansion": 0.0}, {"rate": 0.0}, {"step": 1.5},
        {"least_step": 0.5}, {"learning": math.inf}, {"learning": math.nan}, {"spacing": 1.0}, {"rate": "0.5"},
    ],
)  # fmt: skip
def test_a_setting_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match=f"search setting {list(wrong)[-1]} "):
        SearchSettings.from_dict(wrong)
