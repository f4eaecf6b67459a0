"""How literally a search takes what is foretold of stopped trials."""

import numpy as np
import pytest

from evolve import Gene, GeneticSearch, Space, screening
from evolve.kernel import Kernel, Points, Prior, fit_kernel, left_out
from evolve.surrogate import Process, standard_scores
from evolve.trust import fit_trusting

TIMES = [1.0, 4.0, 16.0, 64.0]


def looks(low: float, measured: int = 20, foretold: int = 20, seed: int = 0) -> tuple[Points, Points, Points]:
    """Looks (N, 3) at a hill, the last of them foretold, too low on one side by so much: (points, scores, extra)."""
    rng = np.random.default_rng(seed)
    points = rng.random((measured + foretold, 3))
    heights = -3 * ((points - 0.6) ** 2).sum(1) + 0.02 * rng.normal(size=len(points))
    stopped = np.arange(len(points)) >= measured
    heights -= np.where(stopped & (points[:, 0] > 0.4), low, 0.0)
    return points, standard_scores(heights), np.where(stopped, 0.01, 0.0)


def test_a_score_is_left_out_as_if_it_had_never_been_there() -> None:
    points, scores, extra = looks(0.3)
    kernel = Kernel(np.array([0.5, 0.7, 0.9]), 1.2, 0.05, 0.3)
    found = left_out(kernel, points, scores, extra)
    for row in range(len(points)):
        rest = np.arange(len(points)) != row
        process = Process(kernel, points[rest], scores[rest], extra[rest])
        mean, deviation = process.predict(points[row : row + 1])
        variance = float(deviation[0]) ** 2 + kernel.noise + extra[row]
        density = -0.5 * ((scores[row] - mean[0]) ** 2 / variance + np.log(variance))
        assert found[row] == pytest.approx(density, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_foretold_is_believed_less_the_worse_it_goes_with_what_was_measured(seed: int) -> None:
    factors = [fit_trusting(*looks(low, seed=seed), Prior())[1] for low in (0.0, 2.0)]
    assert factors[0] in TIMES
    assert factors[0] < factors[1] == TIMES[-1]


def test_looks_that_were_foretold_have_no_say_in_how_they_are_taken() -> None:
    """By all looks, most of these would be taken for 16 times as noisy, and not for 64."""
    factors = [fit_trusting(*looks(0.3, seed=seed), Prior())[1] for seed in range(8)]
    assert factors.count(64.0) >= 6


def test_the_kernel_is_fitted_to_looks_as_noisy_as_they_are_taken() -> None:
    points, scores, extra = looks(2.0)
    kernel, factor = fit_trusting(points, scores, extra, Prior())
    plain = fit_kernel(points, scores, extra * factor, Prior())
    np.testing.assert_array_equal(kernel.lengths, plain.lengths)
    assert kernel.noise == plain.noise != fit_kernel(points, scores, extra, Prior()).noise


def test_a_process_that_believes_less_of_it_is_less_wrong_where_it_was_foretold_too_low() -> None:
    points, scores, extra = looks(2.0)
    rng = np.random.default_rng(9)
    asked = rng.random((300, 3))
    truth = -3 * ((asked - 0.6) ** 2).sum(1)
    kernel, factor = fit_trusting(points, scores, extra, Prior())
    chosen = Process(kernel, points, scores, extra * factor).mean(asked)
    literal = Process(fit_kernel(points, scores, extra), points, scores, extra).mean(asked)
    assert np.corrcoef(chosen, truth)[0, 1] > np.corrcoef(literal, truth)[0, 1] + 0.1


def test_without_anything_foretold_or_too_little_measured_it_is_the_plain_fit() -> None:
    for measured, foretold in ((20, 0), (5, 20)):
        points, scores, extra = looks(2.0, measured, foretold, seed=1)
        kernel, factor = fit_trusting(points, scores, extra, Prior())
        plain = fit_kernel(points, scores, extra, Prior())
        assert factor == 1.0
        np.testing.assert_array_equal(kernel.lengths, plain.lengths)
        assert (kernel.signal, kernel.noise, kernel.trend) == (plain.signal, plain.noise, plain.trend)


def searched() -> GeneticSearch:
    """Of 16 trials the first eight whole and the others stopped, all of one curve by the first gene."""
    search = GeneticSearch(Space([Gene(name, 0, 1) for name in "abc"]), seed=3)
    for number in range(16):
        trial = search.ask()
        end = 1 - (trial.config["a"] - 0.7) ** 2 + 0.01 * (number % 3)
        curve = [0.5 * end, end] if number < 8 else [0.5 * end]
        search.tell(trial.id, curve[-1], curve, stopped=number >= 8)
    return search


def test_a_search_takes_stopped_trials_as_the_fit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    history = searched()._history()
    whole = list(range(8))
    features = history.space.features(history.stack(list(range(16))))
    kernel = Kernel(np.full(3, 0.5), 1.0, 0.02)
    scores = standard_scores(history.believed(list(range(16)))[0])
    among_whole = Process(kernel, features[whole], scores[whole]).mean(features)
    literal = []
    for factor in (1.0, 1e12):
        monkeypatch.setattr(screening, "fit_trusting", lambda *_, factor=factor: (kernel, factor))
        literal.append(screening.Screener()._believe(history, 0).means)
    np.testing.assert_allclose(literal[1], among_whole, atol=1e-5)
    assert np.abs(literal[0] - among_whole).max() > 0.01
