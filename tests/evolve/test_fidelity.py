"""How well short trainings rank like long ones."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from evolve.fidelity import agreement_words, rank_agreement


def curves(count: int, noise: float, epochs: int = 9, seed: int = 0) -> list[list[float]]:
    """Trials that rise towards their own height, with noise."""
    rng = np.random.default_rng(seed)
    rise = np.arange(1, epochs + 1) / epochs
    return [(rng.random() * rise + noise * rng.normal(size=epochs)).tolist() for _ in range(count)]


def test_the_correlation_is_spearmans_of_the_best_so_far() -> None:
    found = curves(30, 0.2)
    agreement = rank_agreement(found, 3)
    assert agreement is not None
    expected = spearmanr([max(each[:3]) for each in found], [max(each) for each in found]).statistic
    assert agreement.rho == pytest.approx(expected)
    assert agreement.low < agreement.rho < agreement.high
    assert (agreement.epoch, agreement.full, agreement.trials) == (3, 9, 30)


def test_ties_share_their_rank() -> None:
    found = [[float(i // 3), float(i % 4)] for i in range(20)]
    agreement = rank_agreement(found, 1)
    assert agreement is not None
    expected = spearmanr([each[0] for each in found], [max(each) for each in found]).statistic
    assert agreement.rho == pytest.approx(expected)


def test_more_trials_narrow_the_interval_and_stopped_ones_do_not_count() -> None:
    few, many = rank_agreement(curves(10, 0.3), 3), rank_agreement(curves(200, 0.3), 3)
    assert few is not None
    assert many is not None
    assert many.high - many.low < few.high - few.low
    stopped = rank_agreement([*curves(10, 0.3), [0.9], [0.1, 0.2]], 3)
    assert stopped == few


@pytest.mark.parametrize("found", [[], [[0.1, 0.2]] * 5, [[0.1, 0.2]] * 20, [[0.1]] * 20])
def test_nothing_is_said_of_too_few_equal_or_single_epochs(found: list[list[float]]) -> None:
    assert rank_agreement(found, 1) is None
    assert agreement_words(found, ["lr0"]) == []


def test_low_agreement_is_warned_of_with_the_genes_that_matter_late() -> None:
    shuffled = [[x, y] for x, y in np.random.default_rng(1).random((20, 2)).tolist()]
    low = [[x / 10, x / 10, y] for x, y in shuffled]
    assert "of the genes here mosaic" in agreement_words(low, ["lr0", "mosaic"])[-1]
    steady = [[x / 3, x / 2, x] for x, _ in shuffled]
    words = agreement_words(steady, ["mosaic"])
    assert len(words) == 2
    assert "ranked like at their end by 1.00" in words[0]


def test_a_rung_that_tells_poor_from_good_but_not_the_best_keeps_few_of_them() -> None:
    """Agreement over all trials is high, and the best would be stopped all the same."""
    poor = [[0.01 * place, 0.01 * place] for place in range(20)]
    good = [[0.5 - 0.01 * place, 0.5 + 0.01 * place] for place in range(10)]  # the slower, the better
    agreement = rank_agreement([*poor, *good, *poor], 1)
    assert agreement is not None
    assert agreement.rho > 0.8
    assert (agreement.best, agreement.kept) == (5, 5)
    crossing = [[0.5 - 0.01 * place, 0.5 + 0.01 * place] for place in range(20)]
    agreement = rank_agreement([*poor, *crossing], 1)
    assert agreement is not None
    assert agreement.rho > 0.4
    assert (agreement.best, agreement.kept) == (4, 0)
    assert "lets one in three go on keeps none of the 4 best." in agreement_words([*poor, *crossing], [])[0]
    steady = [[x, 2 * x] for x in np.random.default_rng(1).random(50).tolist()]
    assert agreement_words(steady, [])[0].endswith("lets one in three go on keeps all of the 5 best.")


def test_equal_trials_all_stand_in_the_best_third() -> None:
    found = [[0.0, float(place)] for place in range(10)] + [[0.1, 0.1]]
    agreement = rank_agreement(found, 1)
    assert agreement is not None
    assert (agreement.best, agreement.kept) == (3, 3)


def test_a_third_is_what_a_rung_takes_for_one() -> None:
    """Of 11 trials a rung lets the best 3 go on; the fourth would be stopped."""
    found = [[0.1 * place, 0.1 * place] for place in range(10)] + [[0.65, 2.0]]
    agreement = rank_agreement(found, 1)
    assert agreement is not None
    assert (agreement.best, agreement.kept) == (3, 2)


def test_with_a_ladder_only_trials_that_reached_both_epochs_are_compared_and_it_says_so() -> None:
    whole = curves(12, 0.3)
    stopped = [curve[:3] for curve in curves(20, 0.3, seed=5)]
    words = agreement_words([*whole, *stopped], ["lr0", "warmup_epochs"], rungs=(3, 9))
    expected = rank_agreement(whole, 3)
    assert expected is not None
    assert words[0].startswith(
        f"After 3 of 9 epochs the trials ranked like at their end by {expected.rho:.2f} "
    )
    assert "12 trials" in words[0]
    assert words[1].startswith("20 of 32 trials were stopped at a rung; only those that reached both epochs")
    assert "interval reaches below 0.7" in words[-1]
    assert "of the genes here warmup_epochs" in words[-1]


def test_rungs_in_between_are_compared_by_all_that_reached_them() -> None:
    found = [*curves(3, 0.01), *(curve[:6] for curve in curves(30, 0.01, seed=4))]
    words = agreement_words(found, [], rungs=(3, 6, 9))
    assert words[0].startswith("After 3 of 6 epochs the trials ranked like at epoch 6 by ")
    assert "33 trials" in words[0]
    few = agreement_words([*curves(2, 0.01), *([[0.1]] * 9)], [], rungs=(1, 9))
    assert few == [few[0]]
    assert few[0].endswith("too few for a figure.")
