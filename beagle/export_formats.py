"""What each program that production may train with reads: its keys, its files, its command.

Facts of the programs: YOLOv5 v7.0, Scaled-YOLOv4 (yolov4-large), Ultralytics 8. What a program has no place for is
said, never dropped in silence.
"""

from collections.abc import Callable, Mapping
from typing import Any

from beagle.export_settings import (
    SCALED_YOLOV4,
    ULTRALYTICS,
    YOLOV5,
    augmentation_notes,
    setting_notes,
    switch_words,
    warmup_notes,
)
from beagle.export_training import Training, Written, lost_note, rate_note, unknown_modules, weights_note
from beagle.setting_genes import SWITCHES
from evolve.export import HERE, shell_variable
from model.spec import ModelSpec, spec_to_yaml

SHARED = (
    *("lr0", "momentum", "weight_decay", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma"),
    *(
        "hsv_h",
        "hsv_s",
        "hsv_v",
        "degrees",
        "translate",
        "scale",
        "shear",
        "perspective",
        "flipud",
        "fliplr",
        "mixup",
    ),
)
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
LATER = ("lrf", "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "mosaic", "copy_paste")


def write_beagle(training: Training) -> Written:
    """For `beagle train`: everything is carried."""
    settings, length = training.settings, training.length
    options = {
        "image-size": settings["image_size"],
        "batch-size": length.batch_size,
        "nominal-batch": length.images_per_step,
        "epochs": length.epochs,
        "optimizer": settings.get("optimizer", "sgd"),
        "schedule": settings.get("schedule", "linear"),
        "anchors": "keep",
        "seed": settings.get("seed", 0),
    }
    for name in ("loss", "box_loss", "assignment", "difficult", "precise_bn", "ema_share"):
        if name in settings:
            options[name.replace("_", "-")] = settings[name]
    if training.start:
        options["weights"] = training.start
    words = ["beagle", "train", shell_variable("DATA"), "--model", "model.yaml", "--hyp", "hyp.yaml"]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    words += [f"--{name.replace('_', '-')}" for name in SWITCHES if settings.get(name)]
    # model.yaml holds the anchors, so production need not fit any: 0 keeps the model's.
    return Written(
        format="beagle",
        hyp={**training.hyp, "anchors": 0},
        names={name: name for name in training.hyp if name != "anchors"},
        command=words,
        texts={"model.yaml": spec_to_yaml(training.spec)},
        variables={"DATA": training.data},
    )


def write_yolov5(training: Training) -> Written:
    """For YOLOv5's train.py."""
    keys = {name: name for name in (*LATER[:1], *SHARED, *LATER[1:], "box")}
    hyp = _carried(training, keys)
    settings = training.settings
    optimizer = training.optimizer_there("YOLOv5", OPTIMIZERS)
    words = [*_yolov5_words(training), "--imgsz", str(settings["image_size"]), "--optimizer", optimizer]
    words += [
        "--seed",
        str(settings.get("seed", 0)),
        "--project",
        f"{HERE}/training",
        "--name",
        "run",
        "--exist-ok",
        "--patience",
        "0",
        *switch_words(YOLOV5, training),
    ]
    if settings.get("schedule") == "cosine":
        words.append("--cos-lr")
    if training.hyp["label_smoothing"]:
        words += ["--label-smoothing", f"{training.hyp['label_smoothing']:g}"]
    return Written(
        format="yolov5",
        hyp=hyp,
        names=keys,
        command=words,
        texts={"model.yaml": spec_to_yaml(training.spec)},
        variables={"YOLOV5": None},
        directory=shell_variable("YOLOV5"),
        notes=[
            "train.sh runs YOLOv5's train.py: set YOLOV5 to the folder that holds it.",
            *rate_note(training),
            *weights_note(training, "YOLOv5"),
            "label_smoothing is an option of the command, not a key of hyp.yaml.",
            "--patience 0: trials train to their end; YOLOv5 would stop after 100 epochs without gain.",
            *setting_notes(YOLOV5, training),
            *augmentation_notes(YOLOV5, training),
            *warmup_notes(YOLOV5, training),
            *lost_note(training, {*keys, "label_smoothing"}),
        ],
    )


def write_scaled_yolov4(training: Training) -> Written:
    """For Scaled-YOLOv4's train.py."""
    keys = {"giou" if name == "box" else name: name for name in ("box", *SHARED)}
    hyp = _carried(training, keys)
    settings, size = training.settings, str(training.settings["image_size"])
    words = [
        *_yolov5_words(training),
        "--img-size",
        size,
        size,
        "--logdir",
        f"{HERE}/training",
        "--name",
        "run",
        *switch_words(SCALED_YOLOV4, training),
    ]
    if training.optimizer_there("Scaled-YOLOv4", {"sgd": "", "adam": "--adam", "adamw": "--adam"}):
        words.append("--adam")
    usual = {"lrf": 0.2, "warmup_epochs": 3.0, "warmup_momentum": 0.9, "warmup_bias_lr": 0.1, "mosaic": 1.0}
    lost = [f"{name} {training.hyp[name]:g} (it uses {value:g})" for name, value in usual.items()]
    lost += [
        f"{name} {training.hyp[name]:g}" for name in ("copy_paste", "label_smoothing") if training.hyp[name]
    ]
    notes = [
        "train.sh runs Scaled-YOLOv4's train.py: set SCALED_YOLOV4 to the folder that holds it.",
        f"The program has these built in and reads no key for them: {', '.join(lost)}.",
        "Its warm-up is 3 epochs, but 1,000 iterations at least.",
        "The seed can't be carried: the program sets its own.",
        *setting_notes(SCALED_YOLOV4, training),
        *rate_note(training),
        *weights_note(training, "Scaled-YOLOv4"),
        *unknown_modules(training.spec, "Scaled-YOLOv4", SCALED_MODULES),
        *lost_note(training, {*keys.values(), *usual, "copy_paste", "label_smoothing"}),
    ]
    if settings.get("schedule", "linear") == "linear":
        notes.append("The linear schedule can't be carried: the program's is a cosine.")
    if training.optimizer == "adamw":
        notes.append("AdamW can't be carried: the program has Adam, whose weight decay acts otherwise.")
    return Written(
        format="scaled-yolov4",
        hyp=hyp,
        names=keys,
        command=words,
        texts={"model.yaml": spec_to_yaml(training.spec)},
        variables={"SCALED_YOLOV4": None},
        directory=shell_variable("SCALED_YOLOV4"),
        notes=notes,
    )


SCALED_MODULES = frozenset(
    {
        "Conv",
        "Bottleneck",
        "BottleneckCSP",
        "BottleneckCSP2",
        "SPP",
        "SPPCSP",
        "Focus",
        "Concat",
        "nn.Upsample",
        "Detect",
    }
)
ULTRALYTICS_MODULES = frozenset(
    {"Conv", "Bottleneck", "BottleneckCSP", "C3", "SPP", "SPPF", "Focus", "Concat", "nn.Upsample", "Detect"}
)


def write_ultralytics(training: Training) -> Written:
    """For Ultralytics' `yolo train`, whose detectors have no anchors and other losses."""
    lost = ("box", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma", "label_smoothing")
    keys = {name: name for name in (*SHARED, *LATER) if name not in lost}
    if training.hyp["cutmix"]:
        keys["cutmix"] = "cutmix"  # versions before 8.3.119 refuse the key, so it is written where it is used
    settings = training.settings
    optimizer = training.optimizer_there("Ultralytics", {**OPTIMIZERS, "rmsprop": "RMSProp"})
    # The program stops mosaics some epochs before the end unless told otherwise; the trials did not.
    hyp = {**_carried(training, keys), "close_mosaic": 0}
    given = {
        "cfg": f"{HERE}/hyp.yaml",
        "data": f"{HERE}/data.yaml",
        "model": f"{HERE}/model.yaml",
        "epochs": training.length.epochs,
        "batch": training.length.batch_size,
        "imgsz": settings["image_size"],
        "optimizer": optimizer,
        "cos_lr": settings.get("schedule") == "cosine",
        "seed": settings.get("seed", 0),
        "patience": 0,
        "project": f"{HERE}/training",
        "name": "run",
    }
    values = ", ".join(f"{name} {training.hyp[name]:g}" for name in lost)
    return Written(
        format="ultralytics",
        hyp=hyp,
        names=keys,
        command=[
            "yolo",
            "train",
            *(f"{key}={value}" for key, value in given.items()),
            *switch_words(ULTRALYTICS, training),
        ],
        texts={"model.yaml": anchor_free(training.spec), "beagle_model.yaml": spec_to_yaml(training.spec)},
        notes=[
            f"Ultralytics' losses are others, so these are left out, and its own defaults stay: {values}.",
            "Its detectors have no anchors: model.yaml is the same network with its own head; the evolved "
            "anchors are in beagle_model.yaml.",
            *rate_note(training),
            *weights_note(training, "Ultralytics"),
            *unknown_modules(training.spec, "Ultralytics", ULTRALYTICS_MODULES),
            "patience=0: trials train to their end; Ultralytics would stop after 100 epochs without gain.",
            *_ultralytics_notes(training),
            *lost_note(training, {*keys, *lost}),
        ],
        model_file="beagle_model.yaml",
    )


def _ultralytics_notes(training: Training) -> list[str]:
    notes = [
        *setting_notes(ULTRALYTICS, training),
        *augmentation_notes(ULTRALYTICS, training),
        *warmup_notes(ULTRALYTICS, training),
    ]
    if training.hyp["cutmix"]:
        notes.append(
            f"cutmix {training.hyp['cutmix']:g} needs Ultralytics 8.3.119 or newer, which pastes only where no "
            "object is."
        )
    if training.settings.get("multi_scale"):
        notes.append(
            "Add multi_scale=0.5 (Ultralytics 8.4 and newer) or multi_scale=True (before) to train.sh."
        )
    return notes


def anchor_free(spec: ModelSpec) -> str:
    """A model file whose Detect takes no anchors."""
    lines = spec_to_yaml(spec).replace("[nc, anchors]", "[nc]").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("anchors:"))
    end = next(number for number, line in enumerate(lines) if line.startswith("backbone:"))
    return "\n".join([*lines[:begin], *lines[end:]]) + "\n"


def _yolov5_words(training: Training) -> list[str]:
    words = [
        "python",
        "train.py",
        "--data",
        f"{HERE}/data.yaml",
        "--cfg",
        f"{HERE}/model.yaml",
        "--weights",
        "",
    ]
    words += ["--hyp", f"{HERE}/hyp.yaml", "--epochs", str(training.length.epochs)]
    return [*words, "--batch-size", str(training.length.batch_size), "--noautoanchor"]


def _carried(training: Training, keys: Mapping[str, str]) -> dict[str, Any]:
    factor = training.rate_share
    rates = ("lr0", "warmup_bias_lr")
    return {
        key: float(f"{training.hyp[name] * factor:.5g}")
        if name in rates and factor != 1
        else training.hyp[name]
        for key, name in keys.items()
    }


FORMATS: Mapping[str, Callable[[Training], Written]] = {
    "beagle": write_beagle,
    "yolov5": write_yolov5,
    "scaled-yolov4": write_scaled_yolov4,
    "ultralytics": write_ultralytics,
}
