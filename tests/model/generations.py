"""Run as a program of its own: saves whole models as each generation of YOLOv5 and Scaled-YOLOv4 did.

Usage: python -W ignore generations.py FOLDER
"""

import argparse
import copy
import pathlib
import sys
from typing import Any

import numpy as np
import torch
from stand_ins import NAMES, AutoShape, Conv, DetectionModel, DetectMultiBackend, Make, MishCuda, Model, leaky
from torch import nn


def drawn(model: Model) -> Model:
    """Weights and statistics of some spread."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "anchor" in name or not tensor.is_floating_point():
                continue
            if tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5) if name.endswith(("var", "weight")) else tensor.normal_(0, 0.1)
            else:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
        for convolution in model.model[-1].m:  # predictions that the sigmoid tells apart
            convolution.weight *= 0.3
    return model.eval()


def fused(model: Model, *, by_none: bool) -> Model:
    """Batch norms folded into the convolutions, as `Model.fuse` leaves a model; a bound method takes the place."""
    for m in model.modules():
        if type(m) is Conv:
            scale = m.bn.weight / (m.bn.running_var + m.bn.eps).sqrt()
            conv = nn.Conv2d(
                m.conv.in_channels, m.conv.out_channels, m.conv.kernel_size, m.conv.stride, m.conv.padding
            )
            conv.weight.data = m.conv.weight.data * scale.data.view(-1, 1, 1, 1)
            conv.bias.data = (m.bn.bias - m.bn.running_mean * scale).data
            m.conv = conv
            if by_none:
                m.bn = None
            else:
                del m.bn
            m.forward = m.fuseforward
    return model


def stepped(model: nn.Module) -> dict[str, Any]:
    """The state of an optimiser that has made a step."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    return optimizer.state_dict()


class Folder:
    """Writes models, and keeps what they hold and detect."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.truth: dict[str, Any] = {}
        self.images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))

    def make(
        self, name: str, zoo: str, act: Make, joint: Make, *, half: bool = False, **options: Any
    ) -> Model:
        torch.manual_seed(len(self.truth))
        cls = options.pop("cls", Model)
        chosen = {"width": 0.125, "depth": 0.33, "eps": 1e-3, "old": True, **options}
        model = drawn(cls(zoo, act=act, joint=joint, **chosen))
        model = model.half().float() if half else model
        with torch.no_grad():
            self.truth[name] = {"decoded": model(self.images), "state": copy.deepcopy(model.state_dict())}
        return model

    def save(self, name: str, value: Any, *, legacy: bool = False) -> None:
        torch.save(value, self.path / f"{name}.pt", _use_new_zipfile_serialization=not legacy)


EPOCH = {"epoch": -1, "best_fitness": np.array([0.5]), "training_results": "0/299 3.1G\n", "optimizer": None}
LATER = {"epoch": 9, "best_fitness": np.float64(0.4), "updates": 700, "wandb_id": None, "date": "2022-02-22"}


def write_old(folder: Folder) -> None:
    """YOLOv5 up to v5.0: legacy files, (average, updates) as a pair, a hub's wrapper, a fused model."""
    folder.save("v2", {**EPOCH, "model": folder.make("v2", "yolov5s-v3.1", leaky, leaky)}, legacy=True)
    model = folder.make("v3.1", "yolov5s-v3.1", nn.Hardswish, leaky, half=True)
    state = stepped(model)
    folder.save("v3.1", {**EPOCH, "model": model.half(), "optimizer": state, "wandb_id": None}, legacy=True)
    model = folder.make("v4", "yolov5s-v4.0", nn.SiLU, leaky, half=True)
    raw = folder.make("raw", "yolov5s-v4.0", nn.SiLU, leaky)
    folder.save("v4", {**EPOCH, "model": raw, "ema": (model.half(), 99), "wandb_id": "abc"})
    shaped = AutoShape(folder.make("v5", "yolov5s-v4.0", nn.SiLU, leaky))
    shaped.yaml, shaped.names = shaped.model.yaml, shaped.model.names
    folder.save("v5", shaped)
    model = folder.make("v5-fused", "yolov5s-v4.0", nn.SiLU, leaky)
    folder.save("v5-fused", {**EPOCH, "model": fused(model, by_none=False)})


def write_new(folder: Folder) -> None:
    """YOLOv5 from v6.0 on: half precision, options and git beside it, names by number, wrappers, counters of thop."""
    new = {"zoo": "yolov5n", "act": nn.SiLU, "joint": nn.SiLU, "old": False}
    model, raw = folder.make("v6", half=True, **new), folder.make("raw", **new)
    folder.save("v6", {**LATER, "model": raw.half(), "optimizer": stepped(model), "ema": model.half()})
    model = folder.make("v7", half=True, cls=DetectionModel, **new)
    model.names = dict(enumerate(NAMES))
    opt = {"imgsz": 512, "save_dir": pathlib.PosixPath("runs/exp"), "device": torch.device("cuda", 0)}
    git = {"remote": "origin", "branch": "master", "commit": "0" * 40}
    folder.save(
        "v7", {**LATER, "model": model.half(), "ema": None, "optimizer": None, "opt": opt, "git": git}
    )
    model = folder.make("v7-backend", cls=DetectionModel, **new)
    folder.save("v7-backend", AutoShape(DetectMultiBackend(model)))
    model = folder.make("measured", **new)
    for module in model.modules():
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
    folder.save("measured", {**EPOCH, "model": nn.DataParallel(model)})
    folder.save("strange", {"model": folder.make("strange", **{**new, "act": nn.GELU, "joint": nn.GELU})})


def write_scaled(folder: Folder) -> None:
    """Scaled-YOLOv4: Mish of another package, norms of another epsilon, fused with None in place of the norm."""
    settings = argparse.Namespace(img_size=[896, 896], hyp="hyp.yaml")
    model = folder.make("scaled-csp", "yolov4-csp", MishCuda, MishCuda, eps=1e-4)
    folder.save("scaled-csp", {**EPOCH, "model": model, "opt": settings}, legacy=True)
    model = folder.make("scaled-p5", "yolov4-p5", MishCuda, MishCuda, half=True, depth=0.2)
    folder.save("scaled-p5", {**EPOCH, "optimizer": stepped(model), "model": model.half(), "opt": settings})
    model = folder.make("scaled-p6-fused", "yolov4-p6", MishCuda, MishCuda, depth=0.1, eps=1e-4)
    folder.save("scaled-p6-fused", {**EPOCH, "model": fused(model, by_none=True)})


def main(path: pathlib.Path) -> None:
    torch.set_num_threads(1)  # small models: threads only wait for each other
    folder = Folder(path)
    for write in (write_old, write_new, write_scaled):
        write(folder)
    torch.save(folder.truth, path / "truth.pt")
    torch.save(folder.images, path / "images.pt")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
