"""Everything that lives through a training: built, restored from a checkpoint, and written to one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dataset import Dataset, Split
from model import Detector
from model.loss import DetectionLoss
from model.spec import ModelSpec, load_spec
from model.transfer import transfer
from model.weights import read_checkpoint
from trainer import checkpoint, prepare
from trainer.config import TrainConfig, TrainResult
from trainer.ema import MovingAverage
from trainer.evaluate import GroundTruth
from trainer.loader import PlannedLoader
from trainer.optim import Schedule, build_optimizer, build_schedule
from trainer.precise_bn import RecentImages
from trainer.run_folder import RunFolder, identity
from trainer.team import SOLO, Team, join_norms


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a session is built from.

    Attributes:
        config: With a batch size that is a number.
        dataset: The data.
        base: The model before its anchors are fitted.
        team: Who trains.
        pieces: In how many parts each batch is processed at least.
        notes: What was decided before, a line each.
        progress: Called with (what, done, total).
        stopped: Whether somebody asks the training to stop.
    """

    config: TrainConfig
    dataset: Dataset
    base: ModelSpec
    team: Team = SOLO
    pieces: int = 1
    notes: tuple[str, ...] = ()
    progress: prepare.Progress | None = None
    stopped: Callable[[], bool] = field(default=lambda: False)


@dataclass(kw_only=True)
class Session:
    """Everything that lives through a training.

    Attributes:
        forward: The detector as it is trained: compiled, or joined with those of other processes.
        precision: Of the forward pass; None is float32.
        pieces: In how many parts each batch goes through the detector, since the whole does not fit into memory.
        recent: Images of the epoch's last batches.
        class_map: mAP@0.5:0.95 of each class at the last evaluation.
        history: One row per finished epoch.
    """

    config: TrainConfig
    folder: RunFolder
    identity: dict[str, Any]
    image_size: int
    device: torch.device
    team: Team
    detector: Detector
    forward: nn.Module
    ema: MovingAverage[Detector]
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    precision: torch.dtype | None
    scaler: torch.amp.GradScaler
    schedule: Schedule
    train_loader: PlannedLoader
    train_split: Split
    val_loader: PlannedLoader
    split: Split
    truth: GroundTruth
    notes: list[str]
    recent: RecentImages
    pieces: int = 1
    class_map: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)


def start(job: Job, folder: RunFolder, state: Mapping[str, Any] | None) -> Session:
    """Build a session, new or as a checkpoint left it.

    Args:
        job: What to train.
        folder: Where it writes.
        state: What a checkpoint holds; None starts anew.
    """
    config, dataset, base, team = job.config, job.dataset, job.base, job.team
    device = prepare.choose_device(config.device)
    image_size, note = prepare.round_image_size(config.image_size, base.grid)
    notes = [*dataset.notes, *base.notes, *([note] if note else [])]
    given = read_checkpoint(config.weights, spec=base) if config.weights and not state else None
    if state:
        spec, notes = load_spec(state["spec"]), list(state["notes"])
    else:
        begin, why = prepare.with_anchors_of(base, given)
        anchors, fitted = prepare.choose_anchors(config, begin, dataset.shapes(image_size), job.progress)
        spec = load_spec(begin, anchors=anchors)
        notes += why + fitted
    detector = prepare.build_detector(spec, config.seed)
    if given:
        notes += transfer(detector, given, dataset.names).lines()
    prepare.place(detector, device)
    frozen = prepare.freeze(detector, config.freeze)
    schedule, why = build_schedule(config, len(dataset.train.images))
    notes += [] if state else [*why, *([frozen] if frozen else [])]
    split = prepare.take_fraction(dataset.val, config.val_fraction)
    ema = MovingAverage(detector, config.ema_share)
    if config.sync_bn and team.world > 1:
        join_norms(detector, device)
    precision = prepare.choose_precision(config.amp, device)
    loss = prepare.build_loss(detector, config, image_size).to(device)
    train_loader, why = prepare.build_train_loader(config, dataset.train, image_size, base.grid, device)
    notes += [line for line in why if line not in notes]
    session = Session(
        config=config,
        folder=folder,
        identity=identity(config, base, dataset),
        image_size=image_size,
        device=device,
        team=team,
        detector=detector,
        forward=detector,
        ema=ema,
        loss=loss,
        optimizer=build_optimizer(detector, schedule.optimizer, config.hyp, schedule.decay_factor),
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision is torch.float16),
        schedule=schedule,
        train_loader=train_loader,
        train_split=dataset.train,
        val_loader=prepare.build_val_loader(
            split,
            image_size,
            base.grid,
            batch_size=max(config.batch // team.world, 1),
            workers=config.workers,
            cache=config.cache,
        ),
        split=split,
        truth=GroundTruth(split, dataset.names),
        notes=[*notes, *(line for line in job.notes if line not in notes)],
        recent=RecentImages(config.precise_bn),
        pieces=job.pieces,
        class_map=[0.0] * len(dataset.names),
    )
    if state:
        restore(session, state)
    _join(session)
    return session


def _join(session: Session) -> None:
    """Give the session its share of the work, and its forward pass the form in which it runs."""
    team = session.team
    session.train_loader.set_share(team.rank, team.world)
    if team.world > 1:
        session.loss.pool = team
    session.forward = team.wrap(session.detector)
    if session.config.compile:
        session.forward.compile()


def restore(session: Session, state: Mapping[str, Any]) -> None:
    """Bring a new session to where a checkpoint was written."""
    session.detector.load_state_dict(state["weights"])
    session.ema.load_state_dict(state["ema"])
    session.optimizer.load_state_dict(state["optimizer"])
    session.scaler.load_state_dict(state["scaler"])
    session.loss.load_state_dict(state["loss"])
    session.history = list(state["history"])
    # Checkpoints before these two existed lack them.
    session.pieces = max(session.pieces, int(state.get("pieces", 1)))
    session.class_map = list(state.get("class_map", session.class_map))


def save(session: Session) -> None:
    """Write results.csv, best.pt when this epoch is the best, and last, because a resume trusts it, last.pt.

    Raises:
        TrainError: The disk is full or the folder can't be written; what was there is then still whole.
    """
    portable = summary(session) | {
        "identity": session.identity,
        "config": session.config.to_dict(),
        "spec": session.detector.spec.to_dict(),
        "names": list(session.truth.names),
        "image_size": session.image_size,
        "epoch": len(session.history) - 1,
        "best_epoch": best_epoch(session.history),
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
        "pieces": session.pieces,
        "class_map": session.class_map,
    }
    checkpoint.save(session.folder.last, portable | resumable)


def summary(session: Session) -> dict[str, Any]:
    """What a result is made of."""
    said = [*session.notes, *session.train_loader.notes(), *session.val_loader.notes()]
    return {
        "history": session.history,
        "notes": list(dict.fromkeys(said)),
        "anchors": session.detector.anchors.tolist(),
    }


def best_epoch(history: list[dict[str, float]]) -> int | None:
    """The first epoch of the highest fitness."""
    return max(range(len(history)), key=lambda epoch: history[epoch]["fitness"], default=None)


def early_stop(history: list[dict[str, float]], patience: int | None) -> str | None:
    """Why a training stops before its last epoch; None while there is hope."""
    best = best_epoch(history)
    if patience is None or best is None or len(history) - 1 - best < patience:
        return None
    return f"stopped after epoch {len(history)}: none was better than epoch {best + 1} for {patience} epochs"


def is_complete(config: TrainConfig, history: list[dict[str, float]]) -> bool:
    """Whether there is nothing left to train."""
    return len(history) >= config.epochs or early_stop(history, config.patience) is not None


def build_result(
    config: TrainConfig, folder: RunFolder, state: Mapping[str, Any], reason: str | None = None
) -> TrainResult:
    """The result of a `summary`; with a reason, that of a training that diverged."""
    history = [dict(row) for row in state["history"]]
    best = best_epoch(history)
    stop = None if reason or len(history) >= config.epochs else early_stop(history, config.patience)
    return TrainResult(
        fitness=None if reason or best is None else history[best]["fitness"],
        metrics={} if best is None else dict(history[best]),
        history=history,
        epochs=len(history),
        best_epoch=best,
        anchors=state["anchors"],
        best=folder.best,
        last=folder.last,
        seconds=sum(row["seconds"] for row in history),
        status="diverged" if reason else "finished",
        reason=reason,
        notes=(*state["notes"], *([stop] if stop else [])),
    )
