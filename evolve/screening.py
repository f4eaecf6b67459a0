"""Children bred in numbers, and one of them chosen by what a Gaussian process believes of them.

The process learns from every trial: noise from configurations tried twice or close together, where trials fail from
those that failed; and of the open ones it believes what it would have said itself. Its hyperparameters are fitted
anew when the told trials have grown by 4 %, to the first of them by number, and when something else is known of
these, so that a proposal depends on what was told and never on when it was asked.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve import plain_breeding
from evolve.brood import KINDS, Brood, breed, refine, strangers
from evolve.failures import Failures
from evolve.growing import grow
from evolve.kernel import Kernel, Prior
from evolve.operators import Points
from evolve.plain_breeding import History
from evolve.racing import standings
from evolve.search_base import Config, Origin
from evolve.surrogate import Process, log_improvement, score_scale, standard_scores
from evolve.trust import fit_trusting

_PARENTS = 10
_GROWTH = 1.04  # of the told trials, until the kernel is fitted again
_FITTED = 240  # most trials that the kernel is fitted to; more hardly change it, and cost their cube
_MODELLED = 700  # most trials that the process holds
_LIKED = 20
_FIRST_STEP = 0.08
_FAILURE_WEIGHT = 3.0  # exponent of the probability that a trial does not fail
_EARLIER_FADES = 20  # told trials after which an earlier result counts half
_FORETOLD = 0.5  # of a foretold fitness's scatter: the process's own noise covers a part of it
_CROWDED = 1e6  # taken from the promise of a child beside an open trial: it is a last resort
_RACE_EVERY = 8  # asks between two repeated trials
_RACE_FROM = 24  # asks, of which half were told


@dataclass(frozen=True)
class _Mind:
    """One of two ways to see the space, which take turns: what the one is wrong about, the other finds.

    Attributes:
        prior: of the process's hyperparameters.
        strangers: children drawn anywhere, as a multiple of those that are bred.
        rounds: of breeding from the children that are liked best, each with half the step.
        grown: children led uphill.
    """

    prior: Prior
    strangers: float
    rounds: int
    grown: int


# The first knows the neighbourhood: a broad tendency, and steps from the fittest. The second surveys the whole.
_MINDS = (
    _Mind(Prior(length=0.5, trend=True), strangers=0.0, rounds=4, grown=0),
    _Mind(Prior(length=0.3, trend=False), strangers=7 / 3, rounds=1, grown=6),
)


@dataclass(frozen=True, eq=False)
class _Belief:
    """What is believed of the space at one ask.

    Attributes:
        finished: ids of the told trials with a fitness that the process knows, in order.
        process: given those trials alone.
        ahead: the same, given that the open ones went as it expects.
        means: (N,) its mean at the finished trials.
        best: the highest mean at any trial, open ones included.
        fails: what is known of where trials fail; None without failures.
    """

    finished: list[int]
    process: Process
    ahead: Process
    means: Points
    best: float
    fails: Failures | None

    def promise(self, features: Points) -> Points:
        """The logarithm of the improvement expected of points (M, F), noise and the chance of failing considered."""
        promise = log_improvement(*self.ahead.predict(features), self.best, self.ahead.kernel.noise)
        return promise if self.fails is None else promise + _FAILURE_WEIGHT * self.fails.log_chance(features)


class Screener:
    """Chooses among children; it keeps nothing but what each mind fitted last, which it could fit again."""

    def __init__(self) -> None:
        self._fitted: dict[int, tuple[dict[int, object], Kernel, float]] = {}

    def propose(self, rng: np.random.Generator, history: History) -> tuple[Config, Origin]:
        """The child that promises most, or a leading configuration once more.

        Args:
            rng: seeded by the search's seed and the trial's number.
            history: with two finished trials or more.

        Raises:
            SearchError: every configuration of the space was tried.
        """
        mind = len(history.trials) % len(_MINDS)
        belief = self._believe(history, mind)
        again = _repeat(history, belief)
        if again is not None:
            return again
        order = np.argsort(-belief.means, kind="stable")
        parents = _different(history, [belief.finished[row] for row in order])
        brood, promise, bred = self._screen(rng, history, belief, parents, _MINDS[mind])
        promise = np.where(_crowded(brood.points, history), promise - _CROWDED, promise)
        for row in np.argsort(-promise, kind="stable"):
            config = history.space.decode(brood.points[row])
            if history.key(config) not in history.seen:
                kind = KINDS[brood.kinds[row]]
                ids = [
                    parents[each] for each in brood.parents[row][: {"mutation": 1, "random": 0}.get(kind, 2)]
                ]
                origin = {"kind": kind, "parents": list(dict.fromkeys(ids)), "screened": len(promise)}
                return config, origin | ({"grown": True} if row >= bred else {})
        return plain_breeding.propose(rng, history)

    def _screen(
        self, rng: np.random.Generator, history: History, belief: _Belief, parents: list[int], mind: _Mind
    ) -> tuple[Brood, Points, int]:
        """Breed, breed again from what is liked, and lead the best uphill.

        Returns:
            (children (M, D), what each promises (M,), how many of the first were bred: those after them were led)
        """
        space, count = history.space, history.settings.children
        stretch = _stretch(belief.process.kernel, len(space))
        brood = breed(rng, space, history.stack(parents), count, stretch)
        brood = brood.joined(strangers(rng, space, round(mind.strangers * count)))
        promise = belief.promise(space.features(brood.points))
        for number in range(mind.rounds):
            liked = np.argsort(-promise, kind="stable")[:_LIKED]
            step = _FIRST_STEP * 0.5**number * stretch
            younger = refine(rng, space, brood, liked, max(count // 2, 1), step)
            brood = brood.joined(younger)
            promise = np.concatenate([promise, belief.promise(space.features(younger.points))])
        bred = len(promise)
        grown = grow(space, belief.ahead, belief.best, brood, promise, mind.grown)
        if grown is not None:
            brood = brood.joined(grown)
            promise = np.concatenate([promise, belief.promise(space.features(grown.points))])
        return brood, promise, bred

    def _believe(self, history: History, mind: int) -> _Belief:
        space = history.space
        told = sorted(history.told)  # by id, so that the order of the tells does not matter
        finished = [trial for trial in told if history.told[trial] is not None]
        if len(finished) > _MODELLED:
            # The fittest and the newest: what is both old and poor says least of where to go.
            fittest = sorted(finished, key=lambda trial: (-(history.told[trial] or 0.0), trial))
            finished = sorted({*fittest[: _MODELLED // 2], *finished[-_MODELLED // 2 :]})
        features = space.features(history.stack(finished))
        scores, extra = _looks(history, finished)
        kernel, factor = self._kernel(history, mind, finished)
        process = _with_earlier(history, kernel, features, scores, extra * factor)
        opened = space.features(history.stack(history.opened()))
        means = process.mean(features)
        expected = process.mean(opened) if len(opened) else means
        failed = [trial for trial in told if history.told[trial] is None]
        return _Belief(
            finished=finished,
            process=process,
            ahead=process.believing(opened),
            means=means,
            best=float(max(means.max(), expected.max())),
            fails=Failures.learn(features, space.features(history.stack(failed))) if failed else None,
        )

    def _kernel(self, history: History, mind: int, finished: list[int]) -> tuple[Kernel, float]:
        """Fitted to the first finished trials, as many as a geometric series allows, and to nothing told besides.

        Returns:
            (the kernel, by what the variances of foretold looks are multiplied)
        """
        size = min(4, len(finished))
        while max(int(size * _GROWTH), size + 1) <= len(finished):
            size = max(int(size * _GROWTH), size + 1)
        first = finished[:size]
        # Of a trial that is not whole how far it came, since what is foretold of it changes with what others do.
        known: dict[int, object] = {
            trial: history.curves[trial] if trial in history.doubts else history.told[trial]
            for trial in first
        }
        fitted = self._fitted.get(mind)
        if fitted is None or fitted[0] != known:
            scores, extra = _looks(history, first)
            rows = np.argsort(-scores, kind="stable")[:_FITTED]
            features = history.space.features(history.stack([first[row] for row in rows]))
            fitted = known, *fit_trusting(features, scores[rows], extra[rows], _MINDS[mind].prior)
            self._fitted[mind] = fitted
        return fitted[1:]


def _looks(history: History, trials: list[int]) -> tuple[Points, Points]:
    """Scores (N,) of trials, and how much noisier than measured ones (N,) those are that were foretold."""
    fitness, doubts = history.believed(trials)
    return standard_scores(fitness), (_FORETOLD * doubts / score_scale(fitness)) ** 2


def _with_earlier(
    history: History, kernel: Kernel, features: Points, scores: Points, extra: Points
) -> Process:
    """The process of this run's looks, and of earlier results as looks of more noise.

    The noise grows with what this run knows itself, and is larger the less alike the data sets are.
    """
    earlier = history.earlier
    if earlier is None:
        return Process(kernel, features, scores, extra)
    points = history.space.features(np.array([history.space.encode(config) for config, _ in earlier.results]))
    worth = standard_scores(np.array([fitness for _, fitness in earlier.results], dtype=np.float64))
    noise = (0.5 + 2.0 * (1.0 - earlier.likeness)) * (1.0 + len(features) / _EARLIER_FADES)
    extra = np.concatenate([extra, np.full(len(points), noise)])
    return Process(kernel, np.vstack([features, points]), np.concatenate([scores, worth]), extra)


def _crowded(points: Points, history: History) -> NDArray[np.bool_]:
    """Which points (M,) lie nearer than `spacing` to an open trial; root mean square over genes."""
    opened = history.stack(history.opened())
    if not len(opened):
        return np.zeros(len(points), dtype=np.bool_)
    squares = ((points[:, None] - opened[None]) ** 2).mean(axis=2).min(axis=1)
    return np.asarray(squares < history.settings.spacing**2, dtype=np.bool_)


def _stretch(kernel: Kernel, genes: int) -> Points:
    """Steps follow what was learnt of each gene: long where the fitness hardly changes, short where it does."""
    if len(kernel.lengths) != genes:
        return np.ones(genes)  # with choices, features are no genes
    logs = np.log(kernel.lengths)
    stretch: Points = np.clip(np.exp(logs - logs.mean()), 0.25, 4.0)
    return stretch


def _different(history: History, ranked: list[int]) -> list[int]:
    """The first trials of the best configurations, each once."""
    firsts = (history.first(trial) for trial in ranked)
    return list(dict.fromkeys(firsts))[:_PARENTS]


def _repeat(history: History, belief: _Belief) -> tuple[Config, Origin] | None:
    """The leader once more under another seed, when noise could have made it the leader; else None.

    Racing: the configuration that would be exported now is repeated, until it was tried `replicas` times or another
    leads; then the one that is believed best. A leader whose standard error is small beside its lead is believed as
    it is, but for the first: without one repeated trial nobody could tell whether the start is beaten.
    """
    settings, asked = history.settings, len(history.trials)
    known = asked >= _RACE_FROM and len(history.told) >= _RACE_FROM // 2
    if settings.replicas < 2 or not known or asked % _RACE_EVERY:
        return None
    whole = [row for row, trial in enumerate(belief.finished) if trial not in history.doubts]
    if not whole:
        return None
    shown = standings(
        (history.first(trial), fitness)
        for trial, fitness in sorted(history.told.items())
        if trial not in history.doubts
    )
    leader = shown[0].trial
    runs = history.runs(leader)
    if len(runs) >= settings.replicas:
        leader = history.first(belief.finished[max(whole, key=lambda row: belief.means[row])])
        runs = history.runs(leader)
    rivals = np.sort(belief.means)[::-1][:_PARENTS]
    error = math.sqrt(belief.process.kernel.noise / len(runs))
    repeated = any(trial.replicates_of is not None for trial in history.trials)
    if len(runs) >= settings.replicas or (repeated and error < rivals[0] - rivals[-1]):
        return None
    origin = {"kind": "replicate", "parents": [leader], "replicates_of": leader, "run": len(runs)}
    return dict(history.trials[leader].config), origin
