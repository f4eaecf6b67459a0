"""Run as a program of its own: writes checkpoints as YOLOv5 and Scaled-YOLOv4 do.

Those pickle objects of classes in their own packages, `models.yolo` and `models.common`. Here such packages are made
up in this process alone, with classes of the same names that hold the same fields, so that the process that reads the
files knows nothing of them.

Usage: python -W ignore other_programs.py FOLDER
"""

import argparse
import copy
import pathlib
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import nn

from model import Detector, build
from model.spec import load_spec

NAMES = ["cat", "dog", "bird"]


def make_class(module: str, name: str) -> type[nn.Module]:
    """A class of that name in a made-up package, which pickle finds there."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
    found = getattr(sys.modules[module], name, None)
    if found is None:
        found = type(name, (nn.Module,), {"__module__": module})
        setattr(sys.modules[module], name, found)
    return found


def disguise(module: nn.Module) -> nn.Module:
    """A module of our own as one of `models.common`; torch's own layers stay."""
    if hasattr(nn, type(module).__name__):  # ours may be a class of torch's with another rounding
        module.__class__ = getattr(nn, type(module).__name__)
        for name, child in module.named_children():
            setattr(module, name, disguise(child))
        return module
    other = make_class("models.common", type(module).__name__)()
    for name, child in module.named_children():
        other.add_module(name, disguise(child))
    return other


def disguise_detect(head: nn.Module, *, old: bool) -> nn.Module:
    other = make_class("models.yolo", "Detect")()
    levels, per_level = head.anchors.shape[:2]
    other.nc, other.no, other.nl, other.na = head.classes, head.outputs, levels, per_level
    other.stride = torch.tensor(head.strides, dtype=torch.float32)
    other.grid = [torch.zeros(1)] * levels
    other.register_buffer("anchors", head.anchors.clone())
    if old:
        other.register_buffer("anchor_grid", head.anchors_px.clone().view(levels, 1, -1, 1, 1, 2))
    other.m = disguise(head.m)
    return other


def other_model(detector: Detector, *, kind: str = "DetectionModel", old: bool = False) -> nn.Module:
    detector = copy.deepcopy(detector)
    model = make_class("models.yolo", kind)()
    rows = [disguise(row) for row in detector.model[:-1]]
    rows.append(disguise_detect(detector.head, old=old))
    for index, row in enumerate(rows):
        row.i, row.f, row.type = index, -1, "models.common.X"
    model.model = nn.Sequential(*rows)
    raw = detector.spec.to_dict()
    del raw["name"]
    raw["anchors"] = [[float(side) for pair in level for side in pair] for level in raw["anchors"]]
    model.yaml, model.names, model.nc = raw, list(NAMES), detector.classes
    model.save, model.inplace, model.stride = [4, 6], True, model.model[-1].stride
    model.hyp = {"lr0": 0.01, "box": np.float64(0.05)}
    model.class_weights = torch.ones(3)
    return model


def trained(name: str, seed: int, anchors: Any = None) -> Detector:
    torch.manual_seed(seed)
    detector = build(name, classes=len(NAMES), anchors=anchors)
    with torch.no_grad():
        for tensor in detector.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return detector


def main(folder: pathlib.Path) -> None:
    torch.set_num_threads(1)  # small models: threads only wait for each other
    v6, other = trained("yolov5n", 0), trained("yolov5n", 1)
    torch.save({"v6": v6.state_dict(), "other": other.state_dict()}, folder / "truth.pt")
    whole = other_model(v6).half()
    optimizer = torch.optim.SGD(v6.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in v6.parameters()).backward()
    optimizer.step()
    v6.load_state_dict(torch.load(folder / "truth.pt")["v6"])
    checkpoint = {
        "epoch": 7,
        "best_fitness": np.array([0.5]),
        "last": np.float64(0.25),
        "model": other_model(other),
        "ema": whole,
        "updates": 12,
        "optimizer": optimizer.state_dict(),
        "opt": {"imgsz": 320, "save_dir": pathlib.Path("runs/exp"), "rect": False},
        "git": {"remote": None, "branch": "main"},
        "date": "2024-01-01",
    }
    torch.save(checkpoint, folder / "v6.pt")
    old = other_model(v6, kind="Model", old=True)
    old.yaml["head"][-1][-1] = [3, old.yaml["anchors"]]  # first versions put values in place of names
    settings = argparse.Namespace(img_size=[416, 416])
    torch.save(
        {"epoch": -1, "ema": None, "model": old, "training_results": "", "opt": settings},
        folder / "old.pt",
        _use_new_zipfile_serialization=False,
    )
    torch.save(nn.DataParallel(other_model(v6)), folder / "alone.pt")
    torch.save({"state_dict": {f"module.{k}": t for k, t in v6.state_dict().items()}}, folder / "state.pt")
    spec = load_spec(
        "yolov5n", classes=3, anchors=[[[5, 6], [7, 9]], [[20, 25], [30, 36]], [[80, 90], [99, 150]]]
    )
    fitted = trained(spec, 2)
    torch.save({"model": other_model(fitted, kind="Model")}, folder / "two_anchors.pt")
    torch.save(fitted.state_dict(), folder / "two_anchors_truth.pt")
    mish = trained(load_spec({**load_spec("yolov5n", classes=3).to_dict(), "activation": "nn.Mish"}), 3)
    without = other_model(mish, kind="Model")
    del without.yaml["activation"]
    torch.save({"model": without}, folder / "mish.pt")
    v31 = trained("yolov5s-v3.1", 4)
    silent = other_model(v31, kind="Model", old=True)
    del silent.yaml["family"]
    torch.save({"model": silent}, folder / "v31.pt")
    torch.save(v31.state_dict(), folder / "v31_truth.pt")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
