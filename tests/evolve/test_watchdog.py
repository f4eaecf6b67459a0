"""Who has been silent for too long, on a clock that the test moves."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from evolve.watchdog import EPOCHS, FIRST_EPOCH_S, LEAST_S, Watchdog


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def wait(watchdog: Watchdog, clock: Clock, seconds: float) -> list[int]:
    """Look every ten seconds, as a driver does; who hangs at the end."""
    hung = watchdog.hung()
    for _ in range(int(seconds / 10)):
        clock.now += 10
        hung = watchdog.hung()
    return hung


def test_before_the_first_epoch_a_trial_has_hours_and_then_ten_epochs() -> None:
    clock = Clock()
    dog = Watchdog(clock=clock)
    dog.started(0)
    assert wait(dog, clock, FIRST_EPOCH_S) == []
    assert wait(dog, clock, 10) == [0]
    dog.ended(0)
    dog.started(1)
    wait(dog, clock, 200)
    dog.heard(1)
    assert dog.patience_s == EPOCHS * 200
    assert wait(dog, clock, 2000) == []
    assert wait(dog, clock, 10) == [1]


def test_short_epochs_do_not_make_it_impatient() -> None:
    clock = Clock()
    dog = Watchdog(clock=clock)
    dog.started(0)
    clock.now += 0.1
    dog.heard(0)
    assert dog.patience_s == LEAST_S


def test_what_the_user_asks_for_counts_and_each_trial_on_its_own() -> None:
    clock = Clock()
    dog = Watchdog(30.0, clock=clock)
    dog.started(0)
    assert wait(dog, clock, 20) == []
    dog.started(1)
    assert wait(dog, clock, 20) == [0]
    assert wait(dog, clock, 20) == [0, 1]
    dog.ended(0)
    dog.heard(1)
    assert wait(dog, clock, 30) == []


def test_a_driver_that_slept_blames_nobody() -> None:
    clock = Clock()
    dog = Watchdog(30.0, clock=clock)
    dog.started(0)
    wait(dog, clock, 20)
    clock.now += 8 * 3600  # the lid was closed
    assert dog.hung() == []
    assert wait(dog, clock, 10) == []
    assert wait(dog, clock, 10) == [0]


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20))
def test_a_trial_that_keeps_its_pace_is_never_hung(lengths: list[float]) -> None:
    clock = Clock()
    dog = Watchdog(clock=clock, longest_epoch_s=max(lengths))
    dog.started(0)
    dog.hung()
    for length in lengths:
        clock.now += length
        assert dog.hung() == []
        dog.heard(0)
