"""AutoAnchor: whether a model's anchors do for a data set, and better ones where they don't. Imports no torch.

A fit is kept in the user's cache folder under a digest of all that it follows from, so the trials of a search fit
once for each number of anchors and threshold. Processes that start together wait for the one that fits.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anchors import AnchorFit, AnchorMetrics, fit, metrics
from dataset.cache import cache_folder

TARGET_BPR = 0.98
"""Best possible recall under which anchors are fitted anew."""

_VERSION = 1  # of the entries; raised too when the search changes so that old fits should not be used

Floats = NDArray[np.float64]
Progress = Callable[[float], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Choice:
    """Anchors for a model on a data set.

    Attributes:
        anchors: (levels, per_level, 2) px.
        before: The model's own, judged on the same boxes.
        after: The same figures for `anchors`.
        fitted: The fit; None where the model's own were kept.
    """

    anchors: Floats
    before: AnchorMetrics
    after: AnchorMetrics
    fitted: AnchorFit | None


def choose(
    wh_px: Floats,
    own: Floats,
    *,
    mode: str = "auto",
    per_level: int = 0,
    threshold: float = 4.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Choice:
    """Judge a model's anchors, and fit others where they reach too few boxes or another number is wanted.

    Args:
        wh_px: (N, 2) shapes of the training boxes at the image size.
        own: (levels, per level, 2) px, the model's.
        mode: "auto" fits where fewer than `TARGET_BPR` of the boxes are reached, "fit" always, "keep" never.
        per_level: Anchors of a level; 0 for as many as the model has.
        threshold: Largest side ratio of a match (`anchor_t`).
        seed: Of the search.
        progress: Told the share done.

    Raises:
        AnchorError: Fewer distinct shapes than anchors.
    """
    levels, wanted = own.shape[0], per_level or own.shape[1]
    same = wanted == own.shape[1]
    before = metrics.evaluate(wh_px, own, threshold)
    if mode == "keep" or (mode == "auto" and same and before.bpr >= TARGET_BPR):
        return Choice(own, before, before, None)
    found = fit_once(
        wh_px,
        levels,
        wanted,
        threshold=threshold,
        seed=seed,
        start=own if same else None,
        progress=progress,
    )
    return Choice(found.anchors, before, found.after, found)


def fit_once(
    wh_px: Floats,
    levels: int,
    per_level: int,
    *,
    threshold: float,
    seed: int,
    start: Floats | None = None,
    progress: Progress | None = None,
) -> AnchorFit:
    """`anchors.fit`, or what it gave before for the same boxes and settings, on this machine.

    Raises:
        AnchorError: See `anchors.fit`.
    """
    settings = [_VERSION, levels, per_level, float(threshold), TARGET_BPR, seed]
    place = cache_folder() / "anchors" / f"{_digest(settings, wh_px, start)}.json"
    with _alone(place):
        known = _read(place)
        if known is not None:
            if progress:
                progress(1.0)
            return known
        found = fit(
            wh_px,
            levels,
            per_level,
            threshold,
            TARGET_BPR,
            seed,
            start=start,
            progress=progress,
        )
        _write(place, found)
    return found


def _digest(settings: list[Any], wh_px: Floats, start: Floats | None) -> str:
    digest = hashlib.sha256(json.dumps(settings).encode())
    for array in (wh_px, np.zeros(0) if start is None else start):
        digest.update(f"{np.shape(array)}".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f8").data)
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let one process after the other at an entry; a folder that can't be written is no hindrance."""
    with contextlib.ExitStack() as held:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(place.with_suffix(".lock").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # given up when the file is closed, or its process dies
        except OSError as error:
            logger.warning("fitted anchors cannot be kept at %s: %s", place.parent, error)
        yield


def _read(place: Path) -> AnchorFit | None:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            return None
        for name in ("before", "after"):
            content[name] = content[name] and AnchorMetrics(**content[name])
        for name in ("anchors", "widest"):
            content[name] = content[name] and np.array(content[name], dtype=np.float64)
        return AnchorFit(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is damaged, and the anchors are fitted anew: %s", place, error)
        return None


def _write(place: Path, found: AnchorFit) -> None:
    content = {"version": _VERSION, **asdict(found)}
    aside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, default=_to_list)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(place)
    except OSError as error:
        logger.warning("fitted anchors cannot be kept at %s: %s", place, error)
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _to_list(value: ArrayLike) -> Any:
    return np.asarray(value).tolist()
