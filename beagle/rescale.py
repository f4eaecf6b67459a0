"""Rules by which hyperparameters of short trials are made those of a production training: pure, and said in words.

Source: linear scaling of SGD's rate with the batch, Goyal et al. 2017 (arXiv 1706.02677), section 2.1; its square
root for Adam, Malladi et al. 2022 (arXiv 2205.10287).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

WARMUP_DIGITS = 4
HIGHEST_RATE = 0.1


@dataclass(frozen=True)
class Length:
    """How long a training is, and in which steps.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per forward pass.
        images_per_step: Images per step of the optimiser.
    """

    epochs: int
    batch_size: int
    images_per_step: int


def nominal_step(batch_size: int, nominal_batch: int) -> int:
    """Images per optimiser step when gradients are accumulated to about `nominal_batch` images.

    >>> nominal_step(16, 64), nominal_step(48, 64), nominal_step(128, 64)
    (64, 48, 128)
    """
    return batch_size * max(round(nominal_batch / batch_size), 1)


def rescale(
    hyp: Mapping[str, float],
    optimizer: str,
    trial: Length,
    production: Length,
    trial_warmup: int,
    batches: int,
) -> tuple[dict[str, float], list[str]]:
    """Hyperparameters for production.

    - The rate goes with the images per step: in proportion for SGD, with the square root for Adam's kinds.
    - The weight decay goes against it: rate times decay, what is decayed per image, stays.
    - The warm-up is as many images as the trial really had, which may be fewer than its gene says (in a short
      training it is capped).
    - lrf and the augmentations are shares and strengths: they stay.

    Args:
        hyp: Of the trial.
        optimizer: "sgd", "adamw" or "adam".
        trial: How the trial trained.
        production: How production will.
        trial_warmup: Iterations of warm-up that the trial had.
        batches: Iterations in an epoch of the trial.

    Returns:
        (hyperparameters, a line for each that changed)
    """
    changed, notes = dict(hyp), []
    share = production.images_per_step / trial.images_per_step
    factor = share if optimizer == "sgd" else math.sqrt(share)
    if not math.isclose(factor, 1):
        rule = "in proportion" if optimizer == "sgd" else "with its square root"
        changed["lr0"] = float(f"{hyp['lr0'] * factor:.5g}")
        changed["weight_decay"] = float(f"{hyp['weight_decay'] / factor:.5g}")
        notes.append(
            f"lr0 {hyp['lr0']:g} became {changed['lr0']:g}: a step is of {production.images_per_step} images, in the "
            f"trials it was of {trial.images_per_step}; {optimizer.upper()}'s rate goes {rule}"
        )
        notes.append(
            f"weight_decay {hyp['weight_decay']:g} became {changed['weight_decay']:g}: rate times decay stays"
        )
        if changed["lr0"] > HIGHEST_RATE:
            notes.append(
                f"lr0 {changed['lr0']:g} is above any that is usual: a smaller batch would need less of it"
            )
    had = round(trial_warmup / batches, WARMUP_DIGITS)
    if not math.isclose(had, hyp["warmup_epochs"], abs_tol=0.5 / batches):
        changed["warmup_epochs"] = had
        notes.append(
            f"warmup_epochs {hyp['warmup_epochs']:g} became {had:g}: what the trial of {trial.epochs} epochs had"
        )
    return changed, notes
