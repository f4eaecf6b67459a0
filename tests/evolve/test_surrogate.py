"""The Gaussian process that children are screened with, and its kernel."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from evolve import kernel as kernels
from evolve.kernel import Kernel, Prior, fit_kernel
from evolve.surrogate import Process, improvement_slopes, log_improvement, standard_scores


def sample(count: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.random((count, features))
    return points, standard_scores(np.sin(5 * points[:, 0]) + 0.05 * rng.normal(size=count))


@pytest.mark.parametrize("trend", [[-0.8], []])
def test_the_gradient_of_the_likelihood_is_that_of_its_differences(trend: list[float]) -> None:
    points, scores = sample(15, 3)
    theta = np.array([0.1, -0.6, 0.4, *trend, -0.2, -1.5])
    centre = theta + np.linspace(-0.6, 0.5, len(theta))
    problem = kernels._Likelihood(points, scores, np.linspace(0, 0.2, 15), centre, np.ones(len(theta)))
    numeric = approx_fprime(theta, lambda x: problem(x)[0], 1e-6)
    np.testing.assert_allclose(problem(theta)[1], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trend", [True, False])
def test_a_fit_comes_to_its_end_within_its_steps(trend: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        kernels, "minimize", lambda *args, **more: found.append(minimize(*args, **more)) or found[-1]
    )
    for seed in range(12):
        points, scores = sample(16, 10, seed)
        fit_kernel(points, scores, prior=Prior(0.3, trend))
    assert len(found) == 12
    assert all(each.success for each in found), [each.message for each in found]


def test_lengths_tell_the_gene_that_matters() -> None:
    points, scores = sample(60, 4)
    kernel = fit_kernel(points, scores)
    assert kernel.lengths[0] < 0.5 * kernel.lengths[1:].min()
    assert kernel.noise < 0.1


def test_pure_noise_is_taken_for_noise() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((80, 3))
    kernel = fit_kernel(points, standard_scores(rng.normal(size=80)))
    process = Process(kernel, points, standard_scores(rng.normal(size=80)))
    assert kernel.noise > 0.3
    assert np.abs(process.mean(rng.random((50, 3)))).max() < 1.5


def test_a_process_is_sure_where_it_looked_and_unsure_far_off() -> None:
    points, scores = sample(40, 2)
    process = Process(Kernel(np.full(2, 0.3), 1.0, 1e-4), points, scores)
    mean, deviation = process.predict(points)
    np.testing.assert_allclose(mean, scores, atol=0.15)
    assert deviation.max() < 0.05
    assert process.predict(np.full((1, 2), 5.0))[1][0] == pytest.approx(1.0, abs=1e-3)


def test_repeated_looks_make_surer_and_their_mean_is_believed() -> None:
    kernel = Kernel(np.ones(1), 1.0, 0.5)
    one = Process(kernel, np.array([[0.5]]), np.array([1.0]))
    four = Process(kernel, np.full((4, 1), 0.5), np.array([0.5, 1.5, 0.8, 1.2]))
    assert four.predict(np.array([[0.5]]))[1] < one.predict(np.array([[0.5]]))[1]
    assert four.mean(np.array([[0.5]]))[0] == pytest.approx(4 / 4.5, abs=1e-6)


def test_believing_changes_no_mean_and_only_narrows() -> None:
    points, scores = sample(30, 3)
    process = Process(fit_kernel(points, scores), points, scores)
    pending, asked = np.random.default_rng(2).random((5, 3)), np.random.default_rng(3).random((40, 3))
    grown = process.believing(pending)
    np.testing.assert_allclose(grown.predict(asked)[0], process.predict(asked)[0], atol=1e-6)
    assert (grown.predict(asked)[1] <= process.predict(asked)[1] + 1e-9).all()
    assert (grown.predict(pending)[1] < process.predict(pending)[1]).all()
    assert process.believing(np.zeros((0, 3))) is process


def test_a_look_with_extra_noise_counts_less() -> None:
    kernel = Kernel(np.ones(1), 1.0, 0.01)
    points, scores = np.array([[0.2], [0.25]]), np.array([1.0, -1.0])
    plain = Process(kernel, points, scores).mean(points[:1])
    noisy = Process(kernel, points, scores, np.array([0.0, 5.0])).mean(points[:1])
    assert noisy[0] > plain[0]


def test_scores_keep_order_and_hold_outliers_at_the_lower_end() -> None:
    fitness = np.concatenate([np.linspace(0.2, 0.4, 50), [-1e6]])
    scores = standard_scores(fitness)
    assert scores.std() == pytest.approx(1.0)
    assert (np.diff(scores[:50]) >= 0).all()
    assert scores[49] - scores[0] > 1.0
    assert standard_scores(np.full(5, 0.3)).tolist() == [0.0] * 5
    assert len(standard_scores(np.zeros(0))) == 0


def test_the_improvement_is_finite_and_falls_steadily_however_hopeless() -> None:
    means = np.linspace(2, -200, 2000)
    gains = log_improvement(means, np.ones(2000), 0.0)
    assert np.isfinite(gains).all()
    assert (np.diff(gains) < 0).all()
    # At the best itself it is the normal density there.
    assert np.exp(log_improvement(np.zeros(1), np.full(1, 2.0), 0.0))[0] == pytest.approx(
        2 / np.sqrt(2 * np.pi)
    )


def test_noise_discounts_an_improvement_where_one_look_would_tell_little() -> None:
    deviations = np.array([1e-6, 0.05, 0.2, 1.0, 50.0])
    plain = log_improvement(np.zeros(5), deviations, 0.0)
    discount = np.exp(log_improvement(np.zeros(5), deviations, 0.0, 0.04) - plain)
    assert log_improvement(np.zeros(5), deviations, 0.0, 0.0).tolist() == plain.tolist()
    # As sure as one look is noisy: 1 - sqrt(1 / 2). Far surer: half of its share of the variance, to the last digits.
    assert discount[2] == pytest.approx(1 - np.sqrt(0.5), rel=1e-12)
    assert discount[0] == pytest.approx(0.5e-12 / 0.04, rel=1e-9)
    assert (np.diff(discount) > 0).all()
    assert 0.99 < discount[-1] < 1.0


@pytest.mark.parametrize("best", [-1.0, 0.5, 8.0])
@pytest.mark.parametrize("trend", [True, False])
def test_the_gradient_of_the_improvement_is_that_of_its_differences(trend: bool, best: float) -> None:
    points, scores = sample(40, 4, seed=4)
    process = Process(Kernel(np.array([0.4, 1.0, 2.0, 0.7]), 0.6, 0.2, 0.4 if trend else 0.0), points, scores)
    asked = np.random.default_rng(5).random((6, 4))
    values, slopes = improvement_slopes(process, asked, best)
    noise = process.kernel.noise
    np.testing.assert_allclose(values, log_improvement(*process.predict(asked), best, noise), rtol=1e-6)
    for point, slope in zip(asked, slopes, strict=True):
        numeric = approx_fprime(
            point, lambda x: float(log_improvement(*process.predict(x[None]), best, noise)[0]), 1e-7
        )
        np.testing.assert_allclose(slope, numeric, rtol=1e-3, atol=1e-3 * np.abs(numeric).max())


def test_a_tendency_tells_a_bowl_from_few_looks_where_hills_alone_do_not() -> None:
    """20 genes and 45 looks: their slopes and bends are 40 numbers, the distances between points say little."""
    rng = np.random.default_rng(6)
    points, asked, optimum = rng.random((45, 20)), rng.random((300, 20)), rng.uniform(0.1, 0.9, 20)
    weights = rng.exponential(1.0, 20)
    bowl = -(weights * (points - optimum) ** 2).sum(1)
    truth = -(weights * (asked - optimum) ** 2).sum(1)
    agreement = [
        np.corrcoef(Process(fit_kernel(points, scores, prior=prior), points, scores).mean(asked), truth)[0, 1]
        for scores in [standard_scores(bowl + 0.1 * rng.normal(size=45))]
        for prior in (Prior(0.5, trend=True), Prior(0.3, trend=False))
    ]
    assert agreement[0] > max(agreement[1], 0.5)


def test_without_a_tendency_there_is_none() -> None:
    points, scores = sample(30, 3)
    assert fit_kernel(points, scores, prior=Prior(0.3, trend=False)).trend == 0.0
    assert fit_kernel(points, scores).trend > 0.0
