"""The ladder of epochs: at each rung a trial is compared with those that came so far, and the hopeless end there.

What is compared is the end that is foretold of each (`evolve.judging`), not what it has at the rung.

Successive halving without waiting: a trial is judged the moment it reaches a rung, so no worker idles. Ray Tune has
the same rule (ASHA), but keeps what it compares with in its driver's memory; here it follows from the journal, so
that a killed driver's successor judges as the unbroken one would have. All trials have one schedule, that of the last
rung: a rung is an epoch reached, not a shorter training.
Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA, with stopping).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

from evolve.space import EvolveError

REDUCTION = 3.0
RECENT = 30
TURNS = 3
"""So many times `reduction` trials are looked back upon, for whether more than their share went on."""
WHOLE = 3
"""Whole trials for each time that a doubt counts, where epochs are what is limited."""


@dataclass(frozen=True)
class Ladder:
    """Where trials are judged, and how many go on.

    Attributes:
        rungs: epochs, ascending; a trial that reaches the last one is whole.
        reduction: one in so many goes on at each rung, > 1.
    """

    rungs: tuple[int, ...]
    reduction: float = REDUCTION

    def __post_init__(self) -> None:
        """Refuse what is no ladder.

        Raises:
            EvolveError: rungs that do not rise from 1, or a reduction that lets all go on.
        """
        rising = all(low < high for low, high in pairwise(self.rungs))
        if not self.rungs or self.rungs[0] < 1 or not rising:
            words = ",".join(map(str, self.rungs))
            if len(self.rungs) == 1:
                raise EvolveError(f"epochs must be a whole number of at least 1, but got {words}")
            raise EvolveError(
                f"epochs must be whole numbers >= 1, each larger than the one before, but got {words!r}"
            )
        if not (math.isfinite(self.reduction) and self.reduction > 1):
            raise EvolveError(f"reduction > 1 must hold, but got {self.reduction:g}")

    @classmethod
    def parse(cls, epochs: str | int, grace: int | None = None, reduction: float = REDUCTION) -> Self:
        """The ladder of the command line.

        Args:
            epochs: "100": whole trainings; "10,30,100": the rungs themselves.
            grace: epochs of the first rung, where `epochs` is one number: the next ones are `reduction` times as far.
            reduction: one in so many goes on.

        Raises:
            EvolveError: no such ladder can be.

        >>> Ladder.parse("10,30,100").rungs, Ladder.parse("100", grace=10).rungs, Ladder.parse(50).rungs
        ((10, 30, 100), (10, 30, 100), (50,))
        """
        try:
            rungs = tuple(int(word) for word in str(epochs).split(","))
        except ValueError:
            raise EvolveError(
                f"epochs must be a number or a ladder such as 10,30,100, but got {str(epochs)!r}"
            ) from None
        if grace is None:
            return cls(rungs, reduction)
        if len(rungs) > 1:
            raise EvolveError("grace is for epochs of one number; a ladder names its first rung itself")
        if not 1 <= grace < rungs[0]:
            raise EvolveError(f"1 <= grace < {rungs[0]} (the epochs) must hold, but got {grace}")
        cls(rungs, reduction)  # refused before powers of it are taken
        places = [float(grace)]
        # A rung that is nearly at the top would hold nobody back.
        while places[-1] * reduction <= 0.9 * rungs[0] / math.sqrt(reduction):
            places.append(places[-1] * reduction)
        return cls((*dict.fromkeys(round(place) for place in places), rungs[0]), reduction)

    @property
    def full(self) -> int:
        """Epochs of a whole trial."""
        return self.rungs[-1]

    @property
    def words(self) -> str:
        """How long trials are, for a sentence.

        >>> Ladder((10, 30, 100)).words, Ladder((50,)).words
        ('10, 30 or 100 epochs', '50 epochs')
        """
        early = ", ".join(map(str, self.judged))
        return f"{early} or {self.full} epochs" if early else f"{self.full} epochs"

    @property
    def judged(self) -> tuple[int, ...]:
        """Rungs at which trials end; none where there is only the full length."""
        return self.rungs[:-1]

    def bar(self, before: Sequence[float], went_on: Sequence[bool], own: float) -> float | None:
        """What the newest trial at a rung must reach to go on; None while nothing is known to compare it with.

        It must be among the best of all and of the newest 30, since a search that gets better would else send all its
        trials on: they beat those of its beginning. And where more than their share went on, of all and of the last
        few (nine, where one in three does), it must be the best yet. Of the last few too: a search that begins with
        many that go on would else see no more ends for as long as it takes to make up for them.

        Args:
            before: what trials judged at this rung are worth, in the order in which they were judged.
            went_on: whether each of them went on.
            own: what the one in question is worth.

        >>> Ladder((1, 9)).bar([0.3, 0.2, 0.1], [True, False, False], 0.25)
        0.3
        """
        if not before:
            return None
        worth = [*before, own]
        last = went_on[-round(self.reduction * TURNS) :]
        if self._had_their_share(went_on) and self._had_their_share(last):
            return max(worth)
        return max(self.cut(worth), self.cut(worth[-RECENT:]))

    def _had_their_share(self, went_on: Sequence[bool]) -> bool:
        return sum(went_on) > (len(went_on) + 1) / self.reduction

    def cut(self, fitnesses: Sequence[float]) -> float:
        """The lowest of the best of some fitnesses, one in `reduction` of them, rounded down, and one at least."""
        best = sorted(fitnesses, reverse=True)
        return best[max(int(len(best) / self.reduction), 1) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_header` reads back."""
        return asdict(self) | {"rungs": list(self.rungs)}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Ladder | None":
        """The ladder of a run; None for a run whose trials all go to their end.

        Raises:
            EvolveError: it is none.
        """
        data = header.get("ladder")
        if not data or len(data["rungs"]) < 2:
            return None
        return cls(tuple(data["rungs"]), float(data.get("reduction", REDUCTION)))


@dataclass(frozen=True)
class Rung:
    """One trial judged.

    Attributes:
        epochs: where.
        fitness: its best until there.
        bar: what it had to reach; None where all went on.
        goes_on: whether it does.
        foretold: the end that was foretold of it, which was held against the bar; None in a journal of before, where
            the fitness was.
        doubt: standard deviation by which that may be off, which was added to it before.
        times: how often it was added.
    """

    epochs: int
    fitness: float
    bar: float | None
    goes_on: bool
    foretold: float | None = None
    doubt: float = 0.0
    times: float = 1.0

    @property
    def words(self) -> str:
        """Why it does not go on.

        >>> Rung(10, 0.21, 0.44, False, 0.4, 0.01).words
        '0.4000 ± 0.0100 foretold by 0.2100 at epoch 10, where 0.4400 goes on'
        >>> Rung(10, 0.21, 0.44, False, 0.4, 0.01, 3.0).words
        '0.4000 ± 3.0 x 0.0100 foretold by 0.2100 at epoch 10, where 0.4400 goes on'
        """
        own = f"{self.fitness:.4f} at epoch {self.epochs}"
        if self.foretold is not None:
            times = f"{self.times:.1f} x " if self.times > 1 else ""
            doubt = f" ± {times}{self.doubt:.4f}" if self.doubt else ""
            own = f"{self.foretold:.4f}{doubt} foretold by {own}"
        return own if self.bar is None else f"{own}, where {self.bar:.4f} goes on"


def best_fitness(reports: Mapping[int, Mapping[str, Any]], epochs: int) -> float | None:
    """The best finite fitness of the first epochs; None where none was measured."""
    values = (row.get("fitness") for epoch, row in reports.items() if epoch < epochs)
    return max((v for v in values if isinstance(v, int | float) and math.isfinite(v)), default=None)
