"""Settings of a run that are no hyperparameters, in another program's words: its options, and what is said else.

Source: what is published of the programs. YOLOv5 v7.0 has the options `--rect`, `--multi-scale`, `--image-weights`
and `--patience` (100 unless told; 0 never stops); Scaled-YOLOv4 has the first two. Ultralytics has `rect` and
`patience`; its `multi_scale` was a switch up to 8.3 and is a share of the image size since (ultralytics/ultralytics
pull request 23284), `cutmix` came with 8.3.119 (19870). Copy-paste of YOLOv5 and Ultralytics needs polygons
(ultralytics/yolov5 issue 7094, ultralytics/ultralytics issue 3289), and both warm up for 100 iterations at least.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from beagle.export_training import Training
from beagle.setting_genes import SWITCHES
from trainer.config import TrainConfig
from trainer.optim import LEAST_WARMUP


@dataclass(frozen=True)
class Program:
    """What a program makes of a run's settings.

    Attributes:
        name: As users know it.
        switches: Those of `SWITCHES` that it has, to the word that sets them.
        always: Settings that it has no option for, to what it does; other values are lost.
    """

    name: str
    switches: Mapping[str, str] = field(default_factory=dict)
    always: Mapping[str, str] = field(default_factory=dict)


_ANCHORED = MappingProxyType({"box_loss": "ciou", "assignment": "ratio", "difficult": "learn"})
YOLOV5 = Program(
    "YOLOv5",
    {"rect": "--rect", "multi_scale": "--multi-scale", "image_weights": "--image-weights"},
    {**_ANCHORED, "loss": "yolov5"},
)
SCALED_YOLOV4 = Program(
    "Scaled-YOLOv4",
    {"rect": "--rect", "multi_scale": "--multi-scale"},
    {**_ANCHORED, "loss": "scaled-yolov4"},
)
ULTRALYTICS = Program("Ultralytics", {"rect": "rect=True"}, {"difficult": "learn"})


def switch_words(program: Program, training: Training) -> list[str]:
    """Words of the program's command for the switches that the run had on."""
    return [word for name, word in program.switches.items() if training.settings.get(name)]


def setting_notes(program: Program, training: Training) -> list[str]:
    """What the program can't be told of the run's settings."""
    settings = training.settings
    lost = [name for name in SWITCHES if settings.get(name) and name not in program.switches]
    other = [
        f"{name} {settings[name]} (it uses {own})"
        for name, own in program.always.items()
        if settings.get(name, own) not in (own, "auto")
    ]
    notes = []
    if lost:
        notes.append(f"{program.name} has no option for these, which the trials had on: {', '.join(lost)}.")
    if other:
        notes.append(f"{program.name} has these built in: {', '.join(other)}.")
    return notes + _averaging_notes(program, training)


def _averaging_notes(program: Program, training: Training) -> list[str]:
    """That a short training scores lower there, with what Beagle does for its evaluations alone."""
    names = ("precise_bn", "ema_share")
    values = {name: training.settings.get(name, getattr(TrainConfig, name)) for name in names}
    if not any(values.values()):
        return []
    said = " and ".join(f"{name} {value:g}" for name, value in values.items() if value)
    return [
        f"The trials were evaluated with {said}, which {program.name} has not: the same training "
        "scores lower there, the less so the longer it is."
    ]


def augmentation_notes(program: Program, training: Training) -> list[str]:
    """Where the program's augmentations of the same name do less."""
    if not training.hyp.get("copy_paste"):
        return []
    return [
        f"copy_paste {training.hyp['copy_paste']:g} acts in {program.name} only on objects that are labelled by "
        "polygons; Beagle pastes boxes too."
    ]


def warmup_notes(program: Program, training: Training) -> list[str]:
    """Whether the program's shortest warm-up is longer than that of the trials."""
    iterations = round(training.hyp["warmup_epochs"] * training.batches)
    if not 0 < iterations < LEAST_WARMUP:
        return []
    return [
        f"{program.name} warms up for {LEAST_WARMUP} iterations at least; warmup_epochs "
        f"{training.hyp['warmup_epochs']:g} would be {iterations}."
    ]
