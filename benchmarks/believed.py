"""What a search with a ladder believes of places where it has not been, held against evolutions that have.

    python -m benchmarks.believed [JOURNAL JOURNAL...] [--asked 24,28,32,38,44] [--whole 12]
        [--times 0,0.5,1,2,4,8,inf,chosen]

Each journal is of an evolution of the same genes and data under a seed of its own, such as
`python -m benchmarks.ladder_trained run --rules ladder --journals FOLDER` has kept; without any, eight on BCCD
(96 px, 40 epochs, one at a time; two of them of whole trials alone), of which what a search is told was kept.
After so many trials were asked, `--whole` or more of them whole, the process that screens children, with its usual
prior, is fitted to what the search of an evolution with a ladder knows, and foretells all trials of the other
evolutions. Of those the fitness counts, or what is foretold of them at their evolution's end. No training is needed:
what a change of how stopped trials are taken does is seen in seconds.

`--times` multiplies the noise with which the search takes a stopped trial; `chosen` is by what the search itself
multiplies it, inf leaves stopped trials out. Columns: mean error and root mean square error, mean log likelihood,
Spearman's rank correlation over all trials and over the best quarter of them, and the mean fitness of the three and
ten trials with the highest expected improvement.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from evolve import read_journal
from evolve.journal import Event
from evolve.kernel import Prior, fit_kernel
from evolve.screening import _FORETOLD
from evolve.search import GeneticSearch, search_from_events
from evolve.surrogate import Process, log_improvement, score_scale, standard_scores
from evolve.trust import fit_trusting

Points = NDArray[np.float64]
JOURNALS = Path(__file__).parent / "data" / "bccd_ladders"


@dataclass(frozen=True)
class Known:
    """What a search knows of its trials.

    Attributes:
        features: (N, F) of their genes.
        fitness: (N,) measured or foretold.
        scatter: (N,) of what is foretold; 0 where it was measured.
    """

    features: Points
    fitness: Points
    scatter: Points

    @classmethod
    def of(cls, events: list[Event]) -> "Known":
        """From a journal, or the beginning of one."""
        search = search_from_events(events)
        if not isinstance(search, GeneticSearch):
            raise TypeError("a journal of the genetic search is needed")
        history = search._history()
        told = [trial for trial in sorted(history.told) if history.told[trial] is not None]
        return cls(search.space.features(history.stack(told)), *history.believed(told))

    def believe(self, places: Points, times: float | None) -> tuple[Points, Points]:
        """Mean (M,) and deviation (M,) of a look at places (M, F).

        Args:
            places: as features.
            times: by what the noise of stopped trials is multiplied; None as the search chooses.
        """
        kept = (self.scatter == 0) | (times is None or math.isfinite(times))
        features, fitness = self.features[kept], self.fitness[kept]
        scores, scale = standard_scores(fitness), score_scale(fitness)
        noise = (_FORETOLD * self.scatter[kept] / scale) ** 2
        if times is None:
            kernel, factor = fit_trusting(features, scores, noise, Prior())
            noise = noise * factor
        else:
            noise = noise * (times**2 if math.isfinite(times) else 0.0)
            kernel = fit_kernel(features, scores, noise)
        mean, deviation = Process(kernel, features, scores, noise).predict(places)
        top = int(np.argmax(fitness))
        return (mean - scores[top]) * scale + fitness[top], np.sqrt(deviation**2 + kernel.noise) * scale


def beginning(events: list[Event], asked: int) -> list[Event]:
    """A journal until so many trials were asked."""
    return list(takewhile(lambda event: event["event"] != "ask" or event["trial"] < asked, events))


def judge(mean: Points, deviation: Points, true: Points, best: float) -> list[float]:
    """The columns, for foretold trials (M,), where `best` is the best that the search has."""
    error = (true - mean) / deviation
    good = true >= np.quantile(true, 0.75)
    promising = np.argsort(-log_improvement(mean, deviation, best))
    return [
        float(np.mean(mean - true)),
        float(np.sqrt(np.mean((mean - true) ** 2))),
        float(np.mean(-0.5 * error**2 - np.log(deviation) - 0.5 * math.log(2 * math.pi))),
        float(spearmanr(mean, true)[0]),
        float(spearmanr(mean[good], true[good])[0]),
        float(true[promising[:3]].mean()),
        float(true[promising[:10]].mean()),
    ]


def rows(
    journals: list[Path], asked: list[int], least: int, times: list[float | None]
) -> Iterator[tuple[float | None, list[float]]]:
    """Of each evolution, moment (with `least` whole trials and a stopped one) and multiple: it and the columns."""
    events = [list(read_journal(path)) for path in journals]
    ends = [Known.of(each) for each in events]
    for number, (mine, end) in enumerate(zip(events, ends, strict=True)):
        others = [each for place, each in enumerate(ends) if place != number]
        places = np.vstack([each.features for each in others])
        true = np.concatenate([each.fitness for each in others])
        for count in asked:
            if len(end.fitness) < count:
                continue
            known = Known.of(beginning(mine, count))
            whole = known.scatter == 0
            if whole.sum() >= least and not whole.all():
                for each in times:
                    yield each, judge(*known.believe(places, each), true, float(known.fitness[whole].max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("journals", type=Path, nargs="*", default=sorted(JOURNALS.glob("*.jsonl")))
    parser.add_argument("--asked", default="24,28,32,38,44")
    parser.add_argument("--whole", type=int, default=12)
    parser.add_argument("--times", default="0,0.5,1,2,4,8,inf,chosen")
    options = parser.parse_args()
    asked = [int(word) for word in options.asked.split(",")]
    times = [None if word == "chosen" else float(word) for word in options.times.split(",")]
    found: dict[float | None, list[list[float]]] = {}
    for each, columns in rows(options.journals, asked, options.whole, times):
        found.setdefault(each, []).append(columns)
    print("| times | fits | error | rms | log likelihood | rank | of the good | best 3 | best 10 |")
    print(f"|{'---|' * 9}")
    for each, table in found.items():
        mean = np.mean(table, axis=0)
        name = "chosen" if each is None else f"{each:g}"
        print(f"| {name} | {len(table)} | {' | '.join(f'{value:.3f}' for value in mean)} |")


if __name__ == "__main__":
    main()
