"""The genetic operators, one property each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evolve import operators

points = arrays(np.float64, st.integers(0, 8), elements=st.floats(-5, 5))
seeds = st.integers(0, 2**32 - 1)


@given(points)
def test_reflection_lands_in_the_unit_range_and_leaves_what_is_inside(point: np.ndarray) -> None:
    inside = operators.reflect(point)
    assert inside.shape == point.shape
    assert np.all((inside >= 0) & (inside <= 1))
    kept = (point >= 0) & (point <= 1)
    np.testing.assert_array_equal(inside[kept], point[kept])


def test_reflection_is_a_mirror_at_both_bounds() -> None:
    np.testing.assert_allclose(
        operators.reflect(np.array([-0.25, 1.25, 2.25, -1.75])), [0.25, 0.75, 0.25, 0.25]
    )


def test_mutants_at_a_bound_do_not_pile_upon_it() -> None:
    rng = np.random.default_rng(0)
    mutants = operators.reflect(np.array([operators.mutate(rng, np.zeros(1), 0.1, 1.0) for _ in range(500)]))
    assert np.mean(mutants < 1e-3) < 0.05


@given(seeds, st.integers(0, 20), st.integers(1, 6))
def test_each_slice_of_a_latin_design_holds_one_point(seed: int, count: int, genes: int) -> None:
    design = operators.latin(np.random.default_rng(seed), count, genes)
    assert design.shape == (count, genes)
    slices = np.sort(np.floor(design * count), axis=0)
    np.testing.assert_array_equal(slices, np.tile(np.arange(count)[:, None], (1, genes)))


@given(seeds, st.integers(1, 20), st.floats(0, 10), st.data())
def test_selection_draws_different_members(
    seed: int, population: int, pressure: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, population))
    ranks = operators.select(np.random.default_rng(seed), population, count, pressure)
    assert len(set(ranks.tolist())) == count
    assert all(0 <= rank < population for rank in ranks)


def test_selection_prefers_the_fitter_by_the_pressure_given() -> None:
    rng = np.random.default_rng(0)
    ranks = [int(operators.select(rng, 10, 1, 3.0)[0]) for _ in range(4000)]
    counts = np.bincount(ranks, minlength=10)
    assert counts[0] / counts[5] == pytest.approx(np.exp(1.5), rel=0.25)
    flat = np.bincount([int(operators.select(rng, 10, 1, 0.0)[0]) for _ in range(4000)], minlength=10)
    assert flat.min() > 300


@given(seeds, st.integers(0, 8), st.floats(0, 1))
def test_a_child_of_two_lies_between_them_or_a_little_beyond(seed: int, genes: int, extension: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random(genes), rng.random(genes)
    child = operators.cross(rng, first, second, extension)
    slack = extension * np.abs(second - first) + 1e-12
    assert np.all(child >= np.minimum(first, second) - slack)
    assert np.all(child <= np.maximum(first, second) + slack)


def test_a_recombined_child_has_the_covariance_of_its_parents() -> None:
    rng = np.random.default_rng(0)
    parents = rng.multivariate_normal([0.5, 0.5], [[0.02, 0.015], [0.015, 0.02]], size=12)
    centre = np.array([0.3, 0.6])
    children = np.array([operators.recombine(rng, centre, parents, 2.0) for _ in range(20000)])
    np.testing.assert_allclose(children.mean(axis=0), centre, atol=0.01)
    np.testing.assert_allclose(np.cov(children.T), 4 * np.cov(parents.T), rtol=0.1)


@given(seeds)
def test_a_gene_on_which_all_parents_agree_is_left_by_recombination(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = rng.random((5, 3))
    parents[:, 1] = 0.7
    child = operators.recombine(rng, parents[0], parents, 1.0)
    assert child[1] == pytest.approx(0.7)


@given(seeds, st.integers(1, 8), st.floats(0, 1))
def test_a_mutant_differs_from_its_parent(seed: int, genes: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    point = rng.random(genes)
    before = point.copy()
    assert np.any(operators.mutate(rng, point, 0.1, rate) != point)
    np.testing.assert_array_equal(point, before)


def test_mutation_moves_genes_at_the_rate_and_by_the_step_given() -> None:
    rng = np.random.default_rng(0)
    moves = np.array([operators.mutate(rng, np.zeros(20), 0.1, 0.3) for _ in range(2000)])
    assert np.mean(moves != 0) == pytest.approx(0.3 + 0.7 / 20, abs=0.01)
    assert moves[moves != 0].std() == pytest.approx(0.1, rel=0.03)


def test_an_empty_point_has_nothing_to_mutate() -> None:
    assert operators.mutate(np.random.default_rng(0), np.zeros(0), 0.1, 0.5).shape == (0,)


def test_the_nearest_of_none_is_infinitely_far() -> None:
    assert operators.nearest(np.zeros(3), np.zeros((0, 3))) == np.inf


def test_the_distance_to_the_nearest_is_a_root_mean_square() -> None:
    others = np.array([[1.0, 1.0, 1.0, 1.0], [0.2, 0.0, 0.0, 0.0]])
    assert operators.nearest(np.zeros(4), others) == pytest.approx(0.1)
