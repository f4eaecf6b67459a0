"""The training loop: read this first.

`train` builds a `Session` (everything that lives through a training), then for every epoch: `train_one_epoch`,
evaluate the averaged weights, write the checkpoints, report. Whatever is random follows from (seed, epoch), so a
training that was interrupted, between epochs or within one, and resumed equals an unbroken one, bit for bit on a CPU.
"""

import logging
import time
from collections.abc import Callable
from importlib import import_module

from torch import nn

from dataset import Dataset, load
from model.spec import load_spec
from trainer import memory, precise_bn, prepare
from trainer.config import TrainConfig, TrainError, TrainResult
from trainer.epoch import DivergedError, train_one_epoch
from trainer.evaluate import evaluate, to_input
from trainer.run_folder import RunFolder, identity
from trainer.session import Job, Session, build_result, is_complete, save, start, summary
from trainer.stopping import stop_requests

logger = logging.getLogger(__name__)

MEASURES = ("fitness", "map50", "map50_95", "precision", "recall")

Report = Callable[[int, dict[str, float]], None]


def train(
    config: TrainConfig,
    report: Report | None = None,
    dataset: Dataset | None = None,
    *,
    progress: prepare.Progress | None = None,
    pieces: int = 1,
) -> TrainResult:
    """Train a detector.

    Where a batch does not fit into memory, the epoch is begun again with the batch processed in two parts, then in
    four and so on; the step stays the same, and a note says so. SIGTERM abandons the epoch, and leaves the last
    checkpoint as it is.

    Args:
        config: What to do.
        report: Called after each epoch, when its checkpoints are safely written, with the epoch (from 0) and
            fitness, map50, map50_95, precision, recall, box_loss, obj_loss, cls_loss, lr, seconds; after a resume
            once more with the last epoch of before.
        dataset: The data when loaded already; else `config.data` is.
        progress: Called with (what, done, total) for progress bars.
        pieces: In how many parts each batch is processed from the start; an attempt before ran out of memory.

    Returns:
        The result, "finished" or "diverged". A finished training that is resumed returns its result at once.

    Raises:
        TrainError: `out` is not empty, the checkpoint is another training's, the disk is full, or (`StoppedError`)
            the process was told to stop.
        dataset.DataError: The data cannot be read.
        model.spec.ModelError: The model cannot be.
    """
    dataset = dataset or load(config.data, difficult=config.difficult)
    if not config.resume:
        RunFolder(config.out).check_free()
    with stop_requests() as stopped, prepare.cpu_threads(config.threads):
        config, note = memory.resolve_batch(config, dataset)
        job = Job(
            config=config,
            dataset=dataset,
            base=load_spec(config.model, classes=len(dataset.names)),
            pieces=pieces,
            notes=(note,) if note else (),
            progress=progress,
            stopped=stopped,
        )
        if config.devices == 1:
            return memory.with_halving(job, lambda job: run_job(job, report))
        from trainer.parallel import launch  # noqa: PLC0415 - it needs this module, and a training alone never needs it

        return memory.with_halving(job, lambda job: launch(job, report))


def run_job(job: Job, report: Report | None) -> TrainResult:
    """Train to the end, or until memory runs out.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: See `memory.is_exhausted`.
    """
    config, folder = job.config, RunFolder(job.config.out)
    state = folder.load_last(identity(config, job.base, job.dataset)) if config.resume else None
    if state and is_complete(config, state["history"]):
        return build_result(config, folder, state)
    session = start(job, folder, state)
    if job.team.is_first:
        folder.make()
        folder.write_inputs(config)
    with_pictures = config.pictures and job.team.is_first
    if with_pictures and not session.history:
        _draw("draw_start", session)
    if report and session.history and job.team.is_first:
        # The process before may have died between its checkpoint and its report.
        report(len(session.history) - 1, dict(session.history[-1]))
    result = _run(session, job, report)
    if with_pictures and result.epochs:
        _draw("draw_end", session)
    return result


def _draw(what: str, session: Session) -> None:
    """Draw pictures. No training fails for want of them."""
    pictures = import_module("trainer.pictures")  # now, since matplotlib takes its time
    try:
        getattr(pictures, what)(session)
    except TrainError as error:
        logger.warning("no pictures: %s", error)


def _run(session: Session, job: Job, report: Report | None) -> TrainResult:
    """All epochs that are still to do."""
    while not is_complete(session.config, session.history):
        epoch = len(session.history)
        began = time.monotonic()
        try:
            losses = train_one_epoch(session, epoch, job.progress, job.stopped)
        except DivergedError as error:
            logger.warning("training diverged: %s", error)
            return build_result(session.config, session.folder, summary(session), reason=str(error))
        measured = _measure(session, epoch, job.progress)
        seconds = session.team.tell([time.monotonic() - began], session.device)[0]
        session.history.append(measured | losses | {"seconds": seconds})
        if session.team.is_first:
            save(session)
            if report:
                report(epoch, dict(session.history[-1]))
    return build_result(session.config, session.folder, summary(session))


def _measure(session: Session, epoch: int, progress: prepare.Progress | None) -> dict[str, float]:
    """What the averaged weights are worth after an epoch; between evaluations what the last one said."""
    config, team = session.config, session.team
    if epoch % config.val_every and epoch + 1 < config.epochs:
        return {key: session.history[-1][key] for key in MEASURES}
    _renew_statistics(session)
    numbers = [0.0] * (len(MEASURES) + len(session.class_map))
    if team.is_first:
        measured = evaluate(
            session.ema.detector,
            session.val_loader,
            session.truth,
            session.device,
            progress=progress,
        )
        by_class = [row["map50_95"] or 0.0 for row in measured["classes"]]
        numbers = [*(measured[key] for key in MEASURES), *by_class]
    numbers = team.tell(numbers, session.device)
    session.class_map = numbers[len(MEASURES) :]
    return dict(zip(MEASURES, numbers, strict=False))


def _renew_statistics(session: Session) -> None:
    """Let the averaged weights have statistics of their own, see `trainer.precise_bn`. Frozen layers keep theirs."""
    detector, pieces = session.ema.detector, session.pieces
    norms = [
        module
        for index, layer in enumerate(detector.model)
        if index not in session.config.freeze
        for module in layer.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    images = (
        to_input(piece, session.device)
        for batch in session.recent.take()
        for piece in batch.chunk(pieces)
        if len(piece)
    )
    precise_bn.estimate(detector, norms, images, session.team.sum_)
