"""One pass over the training split: what a step of the training is made of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from model.dropblock import set_dropblock
from trainer import adversary, prepare
from trainer.evaluate import to_input
from trainer.optim import Step, apply_step
from trainer.session import Session
from trainer.stopping import StoppedError

CLIP = 10.0
"""Norm that gradients are clipped to."""

LOSSES = ("box_loss", "obj_loss", "cls_loss")


class DivergedError(ArithmeticError):
    """The loss or the weights are no numbers any more. `train` turns it into a result."""


def train_one_epoch(
    session: Session,
    epoch: int,
    progress: prepare.Progress | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """One pass over the training split.

    Args:
        session: Detector, average, optimiser, scaler and loss balance are moved on.
        epoch: From 0; with the seed it decides order, augmentation and whatever the detector draws.
        progress: Called with ("train", batches done, batches).
        stopped: Whether to leave at once.

    Returns:
        box_loss, obj_loss, cls_loss: means over the batches; lr: that of the last step.

    Raises:
        DivergedError: The loss or the weights are no numbers any more.
        StoppedError: `stopped` said so.
    """
    batches = len(session.train_loader)
    sums = torch.zeros(3, device=session.device)
    bad = torch.tensor(batches, device=session.device)  # the first batch whose loss was no number
    waiting = 0  # batches whose gradients wait for the next step
    _begin_epoch(session, epoch)
    with _own_randomness(session, epoch):
        for index, batch in enumerate(session.train_loader):
            if stopped():
                raise StoppedError(f"asked to stop in epoch {epoch + 1}: a resume begins that epoch again")
            session.recent.add(batch["images"])
            step = session.schedule.at(epoch * batches + index)
            waiting += 1
            # Gradients never wait beyond an epoch: checkpoints need not hold them.
            steps = waiting >= step.accumulate or index + 1 == batches
            images, targets = to_input(batch["images"], session.device), batch["targets"].to(session.device)
            if adversary.is_attacked(session.config.hyp.sat, session.config.seed, epoch, index):
                images = adversary.attack(session.detector, session.loss, images, session.config.hyp.sat_eps)
            total, parts = learn(session, images, targets, waits=not steps)
            sums += parts * _share(session, index, len(images))
            bad = torch.where(torch.isfinite(total), bad, bad.clamp(max=index))
            if (
                session.device.type == "cpu" and session.team.world == 1
            ):  # elsewhere looking would cost a wait
                _check_losses(bad, epoch, batches)
            if steps:
                waiting = 0
                take_step(session, step)
            if progress:
                progress("train", index + 1, batches)
    _end_epoch(session, epoch, sums, bad)
    losses = dict(zip(LOSSES, (sums / batches).tolist(), strict=True))
    return losses | {"lr": session.schedule.at((epoch + 1) * batches - 1).lr}


def learn(session: Session, images: Tensor, targets: Tensor, *, waits: bool) -> tuple[Tensor, Tensor]:
    """Add one batch's gradients to those that are there.

    Args:
        session: `pieces` says in how many parts the batch goes through the detector.
        images: (B, 3, H, W) in [0, 1].
        targets: (n, 6), of which the first column is the image.
        waits: More batches follow before the step.

    Returns:
        (the loss, a scalar; its three parts (3,)), both detached.
    """
    team, count = session.team, len(images)
    size = -(-count // min(session.pieces, count))
    total, parts = images.new_zeros(()), images.new_zeros(3)
    for first in range(0, count, size):
        piece, mine = images[first : first + size], targets
        if size < count:
            mine = targets[(targets[:, 0] >= first) & (targets[:, 0] < first + size)]
            mine = mine - mine.new_tensor([first, 0, 0, 0, 0, 0])
        with team.quiet(session.forward, waits or first + size < count):
            with torch.autocast(
                session.device.type, session.precision, enabled=session.precision is not None
            ):
                raw = session.forward(piece)
            loss, named = session.loss(raw, mine)
            # The team's gradients are averaged, but those of shares must add up.
            session.scaler.scale(loss * team.world).backward()
        total += loss.detach()
        parts += torch.stack((named["box"], named["obj"], named["cls"])) * (len(piece) / count)
    return total, parts


def _share(session: Session, index: int, images: int) -> float:
    """How much of a batch this process has seen."""
    if session.team.world == 1:
        return 1.0
    batch = session.config.batch
    return images / min(batch, len(session.train_split.images) - index * batch)


def take_step(session: Session, step: Step) -> None:
    """One step of the optimiser, and of the average behind it."""
    apply_step(session.optimizer, step)
    session.scaler.unscale_(session.optimizer)
    clip_grad_norm_(session.detector.parameters(), CLIP, foreach=True)
    session.scaler.step(session.optimizer)
    session.scaler.update()
    session.optimizer.zero_grad()
    session.ema.update(session.detector)


def _begin_epoch(session: Session, epoch: int) -> None:
    config = session.config
    if config.image_weights:
        session.train_loader.set_chances(prepare.image_chances(session.train_split, session.class_map))
    session.train_loader.set_epoch(epoch)
    prepare.train_mode(session.detector, config.freeze)
    set_dropblock(session.detector, epoch / max(config.epochs - 1, 1))


def _end_epoch(session: Session, epoch: int, sums: Tensor, bad: Tensor) -> None:
    """Bring the processes to one state, and look whether all of it is still numbers.

    Raises:
        DivergedError: It is not.
    """
    batches = len(session.train_loader)
    if session.team.world > 1:
        session.team.sum_(sums)
        first_bad = session.team.sum_((bad < batches).long())
        if first_bad and bad == batches:
            bad = torch.tensor(batches - 1)  # another process knows better which
        session.team.level_buffers([session.detector, session.ema.detector])
    _check_losses(bad, epoch, batches)
    if not all(torch.isfinite(t).all() for t in session.detector.state_dict().values()):
        raise DivergedError(f"weights were no finite numbers after epoch {epoch}")


def _check_losses(bad: Tensor, epoch: int, batches: int) -> None:
    index = int(bad)
    if index < batches:
        raise DivergedError(f"the loss was no finite number in epoch {epoch}, batch {index}")


@contextmanager
def _own_randomness(session: Session, epoch: int) -> Iterator[None]:
    """Torch's generators follow from (seed, epoch) inside, for layers that draw, and are as before afterwards."""
    devices = [session.device.index or 0] if session.device.type == "cuda" else []
    rank = [session.team.rank] if session.team.rank else []
    entropy = np.random.SeedSequence([session.config.seed, epoch, *rank])
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        yield
