"""The training loop: read this first.

`train` builds a `Session` (everything that lives through a training), then for every epoch: `train_one_epoch`,
evaluate the averaged weights, write the checkpoints, report. Whatever is random follows from (seed, epoch), so a
training that was interrupted and resumed equals an unbroken one, bit for bit on a CPU.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from dataset import Dataset, Split, load
from model import Detector
from model.loss import DetectionLoss
from model.spec import ModelSpec, load_spec
from model.transfer import transfer
from model.weights import read_checkpoint
from trainer import checkpoint, prepare
from trainer.config import TrainConfig, TrainResult
from trainer.ema import MovingAverage
from trainer.evaluate import GroundTruth, evaluate, to_input
from trainer.loader import Loader
from trainer.optim import Schedule, apply_step, build_optimizer, build_schedule
from trainer.run_folder import RunFolder, identity

logger = logging.getLogger(__name__)

CLIP = 10.0
"""Norm that gradients are clipped to."""

LOSSES = ("box_loss", "obj_loss", "cls_loss")
MEASURES = ("fitness", "map50", "map50_95", "precision", "recall")

Report = Callable[[int, dict[str, float]], None]


class DivergedError(ArithmeticError):
    """The loss or the weights are no numbers any more. `train` turns it into a result."""


@dataclass(kw_only=True)
class Session:
    """Everything that lives through a training."""

    config: TrainConfig
    folder: RunFolder
    identity: dict[str, Any]
    image_size: int
    device: torch.device
    detector: Detector
    ema: MovingAverage[Detector]
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    train_loader: Loader
    val_loader: Loader
    split: Split
    truth: GroundTruth
    notes: list[str]
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    config: TrainConfig,
    report: Report | None = None,
    dataset: Dataset | None = None,
    *,
    progress: prepare.Progress | None = None,
) -> TrainResult:
    """Train a detector.

    Args:
        config: What to do.
        report: Called after each epoch, when its checkpoints are safely written, with the epoch (from 0) and
            fitness, map50, map50_95, precision, recall, box_loss, obj_loss, cls_loss, lr, seconds.
        dataset: The data when loaded already; else `config.data` is.
        progress: Called with (what, done, total) for progress bars.

    Returns:
        The result, "finished" or "diverged". A finished training that is resumed returns its result at once.

    Raises:
        TrainError: `out` is not empty, the checkpoint is another training's, or the disk is full.
        dataset.DataError: The data cannot be read.
        model.spec.ModelError: The model cannot be.
    """
    dataset = dataset or load(config.data)
    base = load_spec(config.model, classes=len(dataset.names))
    folder = RunFolder(config.out)
    if not config.resume:
        folder.check_free()
    state = folder.load_last(identity(config, base, dataset)) if config.resume else None
    if state and len(state["history"]) == config.epochs:
        return _result(folder, state)
    with prepare.cpu_threads(config.threads):
        session = _start(config, folder, dataset, base, progress, state)
        folder.make()
        folder.write_inputs(config)
        return _run(session, report, progress)


def _run(session: Session, report: Report | None, progress: prepare.Progress | None) -> TrainResult:
    """All epochs that are still to do."""
    for epoch in range(len(session.history), session.config.epochs):
        began = time.monotonic()
        try:
            losses = train_one_epoch(session, epoch, progress)
        except DivergedError as error:
            logger.warning("training diverged: %s", error)
            return _result(session.folder, _summary(session), reason=str(error))
        measured = evaluate(
            session.ema.detector,
            session.val_loader,
            session.split,
            session.truth.names,
            session.device,
            truth=session.truth,
            progress=progress,
        )
        row = {key: measured[key] for key in MEASURES} | losses | {"seconds": time.monotonic() - began}
        session.history.append(row)
        _save(session)
        if report:
            report(epoch, dict(row))
    return _result(session.folder, _summary(session))


def train_one_epoch(
    session: Session, epoch: int, progress: prepare.Progress | None = None
) -> dict[str, float]:
    """One pass over the training split.

    Args:
        session: Detector, average, optimiser, scaler and loss balance are moved on.
        epoch: From 0; with the seed it decides order, augmentation and whatever the detector draws.
        progress: Called with ("train", batches done, batches).

    Returns:
        box_loss, obj_loss, cls_loss: means over the batches; lr: that of the last step.

    Raises:
        DivergedError: The loss or the weights are no numbers any more.
    """
    detector, optimizer, scaler, device = session.detector, session.optimizer, session.scaler, session.device
    batches = len(session.train_loader)
    sums = torch.zeros(3, device=device)
    waiting = 0  # micro-batches whose gradients wait for the next step
    detector.train()
    session.train_loader.set_epoch(epoch)
    with _own_randomness(session, epoch):
        for index, batch in enumerate(session.train_loader):
            step = session.schedule.at(epoch * batches + index)
            with torch.autocast(device.type, enabled=scaler.is_enabled()):
                raw = detector(to_input(batch["images"], device))
            total, parts = session.loss(raw, batch["targets"].to(device))
            if not torch.isfinite(total):
                raise DivergedError(f"the loss was {total.item()} in epoch {epoch}, batch {index}")
            scaler.scale(total).backward()
            sums += torch.stack((parts["box"], parts["obj"], parts["cls"]))
            waiting += 1
            # Gradients never wait beyond an epoch: checkpoints need not hold them.
            if waiting >= step.accumulate or index + 1 == batches:
                waiting = 0
                apply_step(optimizer, step)
                scaler.unscale_(optimizer)
                clip_grad_norm_(detector.parameters(), CLIP)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                session.ema.update(detector)
            if progress:
                progress("train", index + 1, batches)
    if not all(torch.isfinite(t).all() for t in detector.state_dict().values()):
        raise DivergedError(f"weights were no finite numbers after epoch {epoch}")
    losses = dict(zip(LOSSES, (sums / batches).tolist(), strict=True))
    return losses | {"lr": session.schedule.at((epoch + 1) * batches - 1).lr}


@contextmanager
def _own_randomness(session: Session, epoch: int) -> Iterator[None]:
    """Torch's generators follow from (seed, epoch) inside, for layers that draw, and are as before afterwards."""
    devices = [session.device.index or 0] if session.device.type == "cuda" else []
    seed = int(np.random.SeedSequence([session.config.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _start(
    config: TrainConfig,
    folder: RunFolder,
    dataset: Dataset,
    base: ModelSpec,
    progress: prepare.Progress | None,
    state: Mapping[str, Any] | None,
) -> Session:
    """Build a session, new or as a checkpoint left it."""
    device = prepare.choose_device(config.device)
    image_size, note = prepare.round_image_size(config.image_size, base.grid)
    notes = [*dataset.notes, *base.notes, *([note] if note else [])]
    given = read_checkpoint(config.weights, spec=base) if config.weights and not state else None
    if state:
        spec, notes = load_spec(state["spec"]), list(state["notes"])
    else:
        start, why = prepare.with_anchors_of(base, given)
        anchors, fitted = prepare.choose_anchors(config, start, dataset.shapes(image_size), progress)
        spec = load_spec(start, anchors=anchors)
        notes += why + fitted
    detector = prepare.build_detector(spec, config.seed)
    if given:
        notes += transfer(detector, given, dataset.names).lines()
    prepare.place(detector, device)
    schedule, why = build_schedule(config, len(dataset.train.images))
    notes += [] if state else why
    session = Session(
        config=config,
        folder=folder,
        identity=identity(config, base, dataset),
        image_size=image_size,
        device=device,
        detector=detector,
        ema=MovingAverage(detector),
        loss=prepare.build_loss(detector, config.hyp, image_size).to(device),
        optimizer=build_optimizer(detector, schedule.optimizer, config.hyp, schedule.decay_factor),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp and device.type == "cuda"),
        schedule=schedule,
        train_loader=prepare.build_train_loader(config, dataset.train, image_size),
        val_loader=prepare.build_val_loader(
            dataset.val, image_size, base.grid, batch_size=config.batch_size, workers=config.workers
        ),
        split=dataset.val,
        truth=GroundTruth(dataset.val, dataset.names),
        notes=notes,
    )
    if state:
        _restore(session, state)
    return session


def _restore(session: Session, state: Mapping[str, Any]) -> None:
    """Bring a new session to where a checkpoint was written."""
    session.detector.load_state_dict(state["weights"])
    session.ema.load_state_dict(state["ema"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scaler.load_state_dict(state["scaler"])
    session.loss.load_state_dict(state["loss"])
    session.history = list(state["history"])


def _summary(session: Session) -> dict[str, Any]:
    """What a result is made of."""
    return {"history": session.history, "notes": session.notes, "anchors": session.detector.anchors.tolist()}


def _save(session: Session) -> None:
    """Write results.csv, best.pt when this epoch is the best, and last, because a resume trusts it, last.pt."""
    portable = _summary(session) | {
        "identity": session.identity,
        "config": session.config.to_dict(),
        "spec": session.detector.spec.to_dict(),
        "names": list(session.truth.names),
        "image_size": session.image_size,
        "epoch": len(session.history) - 1,
        "best_epoch": _best_epoch(session.history),
        "ema": session.ema.state_dict(),
    }
    if portable["best_epoch"] == portable["epoch"]:
        checkpoint.save(session.folder.best, portable)
    session.folder.write_results(session.history)
    # No random state: every stream follows from the seed, in config, and the epoch.
    resumable = {
        "weights": session.detector.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "scaler": session.scaler.state_dict(),
        "loss": session.loss.state_dict(),
    }
    checkpoint.save(session.folder.last, portable | resumable)


def _best_epoch(history: list[dict[str, float]]) -> int | None:
    """The first epoch of the highest fitness."""
    return max(range(len(history)), key=lambda epoch: history[epoch]["fitness"], default=None)


def _result(folder: RunFolder, summary: Mapping[str, Any], reason: str | None = None) -> TrainResult:
    """The result of a history; with a reason, that of a training that diverged."""
    history = [dict(row) for row in summary["history"]]
    best = _best_epoch(history)
    return TrainResult(
        fitness=None if reason or best is None else history[best]["fitness"],
        metrics={} if best is None else dict(history[best]),
        history=history,
        epochs=len(history),
        best_epoch=best,
        anchors=summary["anchors"],
        best=folder.best,
        last=folder.last,
        seconds=sum(row["seconds"] for row in history),
        status="diverged" if reason else "finished",
        reason=reason,
        notes=tuple(summary["notes"]),
    )
