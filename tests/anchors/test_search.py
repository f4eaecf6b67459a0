"""The parts of the search: objective, swap search, dropping, polishing, climbing, breeding."""

from itertools import combinations

import numpy as np
import pytest

from anchors import AnchorError, metrics
from anchors.bins import Bins, build_bins, compress
from anchors.constrained import climb
from anchors.genetic import GeneticSettings, mutate, refine
from anchors.local import drop_to, polish, swap_search
from anchors.objective import Objective, distances, evaluate_population, two_nearest

REACH = float(np.log(4.0))
FITNESS = Objective(REACH)


def rng(seed=5):
    return np.random.default_rng(seed)


def value(anchors, bins, objective=FITNESS):
    return float(evaluate_population(anchors[None], bins, objective)[0])


def test_the_objective_is_the_fitness_and_its_bonus_counts_recall(people):
    bins, anchors = build_bins(people), rng().uniform(2, 6, size=(5, 2))
    exact = metrics.evaluate(people, np.exp(anchors))
    assert value(anchors, bins) == pytest.approx(exact.fitness)
    assert value(anchors, bins, Objective(REACH, 2.0)) == pytest.approx(exact.fitness + 2 * exact.bpr)


def test_a_population_is_worth_what_its_members_are_worth_alone(people):
    bins = build_bins(people)
    population = rng().uniform(2, 6, size=(150, 4, 2))  # more than one part of the table
    worth = evaluate_population(population, bins, FITNESS)
    np.testing.assert_allclose(worth, [value(member, bins) for member in population], rtol=1e-12)


def test_an_empty_population_or_no_shapes_give_empty_or_zero():
    none = build_bins(np.empty((0, 2)))
    assert evaluate_population(np.zeros((0, 3, 2)), none, FITNESS).shape == (0,)
    assert evaluate_population(np.zeros((2, 3, 2)), none, FITNESS).tolist() == [0, 0]


def test_the_two_nearest_of_one_anchor_are_that_anchor():
    nearest, second = two_nearest(np.array([[0.3, 0.1]]))
    assert nearest.tolist() == second.tolist() == [0, 0]


def test_swap_search_finds_the_best_of_all_pairs_of_shapes(people):
    bins = compress(build_bins(people), 30)
    worth = FITNESS.ratio(distances(bins.logs, bins.logs))
    pairs = {pair: worth[list(pair)].max(axis=0) @ bins.weights for pair in combinations(range(len(bins)), 2)}
    starts = [rng(seed).choice(len(bins), 2, replace=False) for seed in range(4)]
    found = [
        worth[swap_search(start, worth, bins.weights, FITNESS)].max(axis=0) @ bins.weights for start in starts
    ]
    assert max(found) == pytest.approx(max(pairs.values()))


def test_swap_search_of_one_anchor_finds_the_best_shape(people):
    bins = compress(build_bins(people), 100)
    worth = FITNESS.ratio(distances(bins.logs, bins.logs))
    chosen = swap_search(np.array([0]), worth, bins.weights, FITNESS)
    assert chosen[0] == (worth @ bins.weights).argmax()


def test_dropping_one_anchor_drops_the_one_missed_least(people):
    bins = compress(build_bins(people), 200)
    anchors = rng().uniform(2, 6, size=(6, 2))
    best = max(value(np.delete(anchors, j, axis=0), bins) for j in range(6))
    assert value(drop_to(anchors, 5, bins, FITNESS), bins) == pytest.approx(best)


def test_dropping_many_is_dropping_one_at_a_time(people):
    bins = compress(build_bins(people), 200)
    anchors = rng().uniform(2, 6, size=(8, 2))
    one_by_one = anchors
    for k in (7, 6, 5, 4, 3, 2, 1):
        one_by_one = drop_to(one_by_one, k, bins, FITNESS)
    np.testing.assert_array_equal(drop_to(anchors, 1, bins, FITNESS), one_by_one)


def test_a_twin_is_dropped_before_an_only_child():
    bins = Bins(np.log([[10.0, 10.0], [90.0, 90.0]]), np.array([0.9, 0.1]))
    anchors = np.log([[10.0, 10.0], [10.0, 10.0], [90.0, 90.0]])
    np.testing.assert_array_equal(drop_to(anchors, 2, bins, FITNESS)[1], anchors[2])


@pytest.mark.parametrize("k", [1, 2, 7])
def test_polishing_raises_the_worth_it_states_and_leaves_its_input(people, k):
    bins, anchors = build_bins(people), rng().uniform(3, 5, size=(k, 2))
    before = anchors.copy()
    polished, worth = polish(anchors, bins, FITNESS, rng(), radius=0.1, sweeps=30)
    assert worth == pytest.approx(value(polished, bins))
    assert worth > value(anchors, bins)
    np.testing.assert_array_equal(anchors, before)


def test_polishing_brings_one_anchor_to_the_shape_that_all_boxes_have():
    bins = build_bins(np.array([[30.0, 50.0]]))
    polished, worth = polish(np.log([[24.0, 55.0]]), bins, FITNESS, rng(), radius=0.1, sweeps=200, until=1e-7)
    np.testing.assert_allclose(np.exp(polished), [[30, 50]], rtol=1e-5)
    assert worth == pytest.approx(1, abs=1e-5)


def test_a_climb_from_too_little_recall_gains_recall_and_then_keeps_it(people):
    bins = compress(build_bins(people), 500)
    reach, anchors = float(np.log(2.0)), np.log([[20.0, 45.0], [25.0, 50.0], [120.0, 180.0]])
    climbed = climb(anchors, bins, reach, 0.75, rng())

    def recall(sets):
        return bins.weights[distances(sets, bins.logs).min(axis=0) < reach].sum()

    assert recall(anchors) < 0.75 <= recall(climbed)
    higher = climb(climbed, bins, reach, 0.75, rng())
    assert recall(higher) >= 0.75
    assert value(higher, bins, Objective(reach)) >= value(climbed, bins, Objective(reach))


def test_a_mutation_leaves_its_parents_as_they_are(people):
    bins = compress(build_bins(people), 100)
    parents = np.zeros((40, 5, 2)) + 3.0
    mutants = mutate(parents, bins, FITNESS, rng())
    assert (parents == 3.0).all()
    moved = (mutants != parents).any(axis=2).sum(axis=1)
    assert (moved > 0).mean() > 0.7
    assert moved.min() < 5


def test_breeding_is_never_worse_than_its_seeds_and_comes_best_first(people):
    bins = build_bins(people)
    seed, _ = polish(np.log(metrics.check_wh(people[:6])), bins, FITNESS, rng(), radius=0.2, sweeps=20)
    small = GeneticSettings(
        seedings=2, population=5, children=6, generations=3, learners=2, coarse=50, fine=4000
    )
    found = refine(bins, 6, FITNESS, rng(), seeds=[seed], settings=small)
    worth = [value(anchors, bins) for anchors in found]
    assert worth == sorted(worth, reverse=True)
    assert worth[0] >= value(seed, bins)


def test_the_survivors_are_not_copies_of_one_set(people):
    found = refine(build_bins(people), 4, FITNESS, rng())
    ordered = [anchors[np.lexsort(anchors.T)] for anchors in found]
    assert min(np.abs(a - b).max() for a, b in combinations(ordered, 2)) > 0.03


def test_too_few_shapes_to_breed_from_are_refused():
    with pytest.raises(AnchorError, match="3 anchors need at least as many distinct shapes, but there are 2"):
        refine(build_bins(np.array([[1.0, 2.0], [3.0, 4.0]])), 3, FITNESS, rng())


def test_sizes_of_nothing_are_refused():
    with pytest.raises(AnchorError, match="children must be at least 1, but got 0"):
        GeneticSettings(children=0)
