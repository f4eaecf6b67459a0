"""Children led uphill on the surrogate."""

import numpy as np
import pytest

from evolve import Gene, Space
from evolve.brood import KINDS, Brood
from evolve.growing import grow
from evolve.kernel import Kernel
from evolve.surrogate import Process, log_improvement, standard_scores

MIXED = Space(
    [
        Gene("a", 0, 1),
        Gene("optimizer", choices=("sgd", "adam", "lion")),
        Gene("n", 1, 9, integer=True),
        Gene("b", 0, 1),
    ]
)


def believed(space: Space, count: int = 40) -> tuple[Process, Brood, np.ndarray]:
    """A process over a hill at 0.3 of each gene, and 30 children with what they promise."""
    rng = np.random.default_rng(0)
    features = space.features(rng.random((count, len(space))))
    scores = standard_scores(-((features - 0.3) ** 2).sum(1))
    process = Process(Kernel(np.full(features.shape[1], 0.8), 1.0, 0.01, 0.3), features, scores)
    points = np.array([space.encode(space.decode(point)) for point in rng.random((30, len(space)))])
    brood = Brood(points, np.arange(30) % len(KINDS), rng.integers(0, 5, (30, 2)))
    return process, brood, promised(process, space.features(points))


def promised(process: Process, features: np.ndarray) -> np.ndarray:
    """What points (M, F) promise (M,), as a search sees it whose best is 0.5."""
    return log_improvement(*process.predict(features), 0.5, process.kernel.noise)


def test_what_is_led_promises_more_and_keeps_its_parents() -> None:
    space = Space([Gene(f"g{i}", 0, 1) for i in range(4)])
    process, brood, promise = believed(space)
    grown = grow(space, process, 0.5, brood, promise, 5)
    assert grown is not None
    led = promised(process, grown.points)
    assert len(grown.points) == 5
    assert led.min() > promise.max() - 1e-6
    assert ((grown.points >= 0) & (grown.points <= 1)).all()
    best = int(np.argmax(promise))
    assert grown.parents[0].tolist() == brood.parents[best].tolist()
    assert grown.kinds[0] == brood.kinds[best]


def test_whole_numbers_and_choices_stay_as_they_were_bred() -> None:
    process, brood, promise = believed(MIXED)
    before = brood.points.copy()
    grown = grow(MIXED, process, 0.5, brood, promise, 6)
    assert grown is not None
    np.testing.assert_array_equal(brood.points, before)
    bred = {tuple(row) for row in before[:, 1:3].tolist()}
    assert {tuple(row) for row in grown.points[:, 1:3].tolist()} <= bred
    led = promised(process, MIXED.features(grown.points))
    assert led[0] > promise.max()


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_is_led_where_nothing_can_move(count: int) -> None:
    space = Space([Gene("n", 1, 9, integer=True), Gene("c", choices=(1, 2))])
    process, brood, promise = believed(space)
    assert grow(space, process, 0.5, brood, promise, count) is None
