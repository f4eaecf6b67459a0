"""Reads an exported training as the named program reads it, and refuses what that program would trip over.

`read(PROGRAM)` parses this process's arguments with the program's own options, opens the files that they name, and
writes what it understood to `read.json` in the output folder. Written from what is published of the programs.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

YOLOV5_KEYS = """lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw
iou_t anchor_t fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic mixup
copy_paste"""
SCALED_KEYS = """lr0 momentum weight_decay giou cls cls_pw obj obj_pw iou_t anchor_t fl_gamma hsv_h hsv_s hsv_v
degrees translate scale shear perspective flipud fliplr mixup"""
ULTRALYTICS_FRACTIONS = """lr0 lrf momentum weight_decay warmup_momentum warmup_bias_lr hsv_h hsv_s hsv_v translate
scale perspective flipud fliplr bgr mosaic mixup cutmix copy_paste"""
"""Must be from 0 to 1, or the program ends."""
ULTRALYTICS_FLOATS = ["warmup_epochs", "box", "cls", "dfl", "degrees", "shear"]
ULTRALYTICS_INTS = ["epochs", "patience", "seed", "close_mosaic", "nbs"]
ULTRALYTICS_SWITCHES = ["cos_lr", "rect"]
ULTRALYTICS_WORDS = ["cfg", "data", "model", "batch", "imgsz", "optimizer", "project", "name"]
ULTRALYTICS_OPTIMIZERS = ["SGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp"]
ULTRALYTICS_KEYS = {*ULTRALYTICS_FRACTIONS.split(), *ULTRALYTICS_FLOATS, "close_mosaic", "nbs"}
MODULES = {
    "yolov5": {"Conv", "C3", "SPPF", "SPP", "Focus", "BottleneckCSP", "Concat", "nn.Upsample", "Detect"},
    "scaled-yolov4": {
        "Conv",
        "BottleneckCSP",
        "BottleneckCSP2",
        "SPPCSP",
        "SPP",
        "Concat",
        "nn.Upsample",
        "Detect",
    },
    "ultralytics": {"Conv", "C3", "SPPF", "SPP", "Focus", "Concat", "nn.Upsample", "Detect"},
}


def read(program):
    if program == "ultralytics":
        options, hyp, out = ultralytics_options(sys.argv[1:])
    else:
        options, out = train_py_options(program)
        hyp = yaml.safe_load(Path(options["hyp"]).read_text())
        needed = (YOLOV5_KEYS if program == "yolov5" else SCALED_KEYS).split()
        check(set(needed) <= set(hyp), f"KeyError: {set(needed) - set(hyp)}")
        check(set(hyp) <= set(needed), f"keys that nothing reads: {set(hyp) - set(needed)}")
        check(all(isinstance(value, int | float) for value in hyp.values()), "hyp: numbers")
        check(options["weights"] == "" or Path(options["weights"]).exists(), "weights")
    model = read_model(program, Path(options["cfg" if program != "ultralytics" else "model"]))
    data = read_data(program, Path(options["data"]), model["nc"])
    out.mkdir(parents=True, exist_ok=True)
    plain = {key: str(value) for key, value in options.items()}
    (out / "read.json").write_text(json.dumps({"options": plain, "hyp": hyp, "model": model, "data": data}))


def check(holds, what):
    if not holds:
        sys.exit(f"refused: {what}")


def train_py_options(program):
    parser = argparse.ArgumentParser()
    for name in ("--weights", "--cfg", "--data", "--hyp", "--device", "--name"):
        parser.add_argument(name, default="")
    for name in ("--epochs", "--batch-size"):
        parser.add_argument(name, type=int)
    for name in ("--noautoanchor", "--rect", "--multi-scale"):
        parser.add_argument(name, action="store_true")
    if program == "yolov5":
        parser.add_argument("--imgsz", "--img", "--img-size", type=int)
        parser.add_argument("--optimizer", choices=["SGD", "Adam", "AdamW"], default="SGD")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--patience", type=int, default=100)
        parser.add_argument("--image-weights", action="store_true")
        parser.add_argument("--project")
        parser.add_argument("--exist-ok", action="store_true")
        parser.add_argument("--cos-lr", action="store_true")
        parser.add_argument("--label-smoothing", type=float, default=0.0)
    else:
        parser.add_argument("--img-size", nargs="+", type=int)
        parser.add_argument("--adam", action="store_true")
        parser.add_argument("--logdir", default="runs/")
    options = vars(parser.parse_args())
    if program == "yolov5":
        return options, Path(options["project"]) / options["name"]
    return options, Path(options["logdir"]) / f"exp0_{options['name']}"


def ultralytics_options(words):
    check(words.pop(0) == "train", "mode")
    options = dict(word.split("=", 1) for word in words)
    check(all(options.values()), "missing value")
    known = {*ULTRALYTICS_KEYS, *ULTRALYTICS_INTS, *ULTRALYTICS_SWITCHES, *ULTRALYTICS_WORDS}
    check(set(options) <= known, f"not a valid YOLO argument: {set(options) - known}")
    hyp = yaml.safe_load(Path(options["cfg"]).read_text())
    check(set(hyp) <= ULTRALYTICS_KEYS, f"not a valid YOLO argument: {set(hyp) - ULTRALYTICS_KEYS}")
    for key, value in hyp.items():
        check(isinstance(value, int | float), f"'{key}={value}' is of invalid type")
        if key in ULTRALYTICS_FRACTIONS.split():
            check(0.0 <= value <= 1.0, f"'{key}={value}' is an invalid value: between 0.0 and 1.0")
    for key in ULTRALYTICS_INTS:
        check(str(options.get(key, hyp.get(key, 0))).isdigit(), f"{key} must be an int")
    for key in ULTRALYTICS_SWITCHES:
        check(options.get(key, "False") in ("True", "False"), f"{key} must be a bool")
    check(
        options["optimizer"] in ULTRALYTICS_OPTIMIZERS, "optimizer"
    )  # auto would choose its own lr0 and momentum
    return options, hyp, Path(options["project"]) / options["name"]


def read_model(program, path):
    model = yaml.safe_load(path.read_text())
    rows = model["backbone"] + model["head"]
    unknown = sorted({row[2] for row in rows} - MODULES[program])
    check(all(isinstance(number, int) and isinstance(args, list) for _, number, _, args in rows), "rows")
    levels, _, last, arguments = rows[-1]
    check(last == "Detect", "the last row is Detect")
    if program == "ultralytics":
        check("anchors" not in model and arguments == ["nc"], "an anchor-free Detect takes nc alone")
    else:
        check(arguments == ["nc", "anchors"], "Detect takes nc and anchors")
        check(len(model["anchors"]) == len(levels), "a row of anchors a level")
        check(
            all(len(row) % 2 == 0 and all(side > 0 for side in row) for row in model["anchors"]),
            "pairs of anchors",
        )
    check(model["depth_multiple"] > 0 and model["width_multiple"] > 0, "multiples")
    return {"nc": model["nc"], "anchors": model.get("anchors"), "unknown": unknown}


def read_data(program, path, classes):
    data = yaml.safe_load(path.read_text())
    check(data["nc"] == len(data["names"]) == classes, "nc, names and the model's classes")
    counts = {}
    for split in ("train", "val"):
        root = Path(data.get("path", "")) if program != "scaled-yolov4" else Path()
        check(program != "scaled-yolov4" or Path(data[split]).is_absolute(), "it reads no key path")
        place = root / data[split]
        images = (
            [Path(line) for line in place.read_text().split()] if place.is_file() else sorted(place.iterdir())
        )
        labels = [Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt") for image in images]
        check(images and all(label.is_file() for label in labels), f"labels of {split} beside its images")
        counts[split] = len(images)
    return counts
