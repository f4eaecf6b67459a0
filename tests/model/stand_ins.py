"""Classes with the names and fields of YOLOv5's and Scaled-YOLOv4's, in made-up packages of one process.

They compute, so that what is read from a pickle can be held against what they detect: they share no layer with the
detectors under test. Imported by generations.py alone, which runs as a program of its own.
"""

import math
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

ZOO = pathlib.Path(__file__).resolve().parents[2] / "model" / "zoo"
CLASSES = 3
NAMES = ["cat", "dog", "bird"]
Make = Callable[[], nn.Module]


def standing_in(module: str) -> Callable[[type], type]:
    """Put a class into a made-up package, where pickle finds it."""

    def put(cls: type) -> type:
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(sys.modules[module], cls.__name__, cls)
        return cls

    return put


@standing_in("mish_cuda")
class MishCuda(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * functional.softplus(x).tanh()


@standing_in("models.common")
class Conv(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fuseforward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


@standing_in("models.common")
class Bottleneck(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, shortcut: bool = True, e: float = 0.5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(act, c1, int(c2 * e), 1), Conv(act, int(c2 * e), c2, 3)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


def inner(act: Make, channels: int, number: int, shortcut: bool) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(act, channels, channels, shortcut, 1.0) for _ in range(number)))


@standing_in("models.common")
class C3(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = (Conv(act, *c) for c in ((c1, c2 // 2), (c1, c2 // 2), (c2, c2)))
        self.m = inner(act, c2 // 2, n, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


@standing_in("models.common")
class BottleneckCSP(nn.Module):
    def __init__(self, act: Make, joint: Make, c1: int, c2: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1, self.cv4 = Conv(act, c1, half), Conv(act, 2 * half, c2)
        self.cv2, self.cv3 = nn.Conv2d(c1, half, 1, bias=False), nn.Conv2d(half, half, 1, bias=False)
        self.bn, self.act = nn.BatchNorm2d(2 * half), joint()
        self.m = inner(act, half, n, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(both)))


@standing_in("models.common")
class BottleneckCSP2(nn.Module):
    def __init__(self, act: Make, joint: Make, c1: int, c2: int, n: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = (
            Conv(act, c1, c2),
            nn.Conv2d(c2, c2, 1, bias=False),
            Conv(act, 2 * c2, c2),
        )
        self.bn, self.act = nn.BatchNorm2d(2 * c2), joint()
        self.m = inner(act, c2, n, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv3(self.act(self.bn(torch.cat((self.m(x), self.cv2(x)), 1))))


def pools(x: Tensor) -> list[Tensor]:
    return [x, *(functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))]


@standing_in("models.common")
class SPP(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, k: Any = (5, 9, 13)) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(act, c1, c1 // 2), Conv(act, c1 // 2 * 4, c2)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(torch.cat(pools(self.cv1(x)), 1))


@standing_in("models.common")
class SPPF(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(act, c1, c1 // 2), Conv(act, c1 // 2 * 4, c2)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(torch.cat(pools(self.cv1(x)), 1))


@standing_in("models.common")
class SPPCSP(nn.Module):
    def __init__(self, act: Make, joint: Make, c1: int, c: int, n: int = 1) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(act, c1, c), nn.Conv2d(c1, c, 1, bias=False)
        self.cv3, self.cv4 = Conv(act, c, c, 3), Conv(act, c, c)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.cv5, self.cv6 = Conv(act, 4 * c, c), Conv(act, c, c, 3)
        self.bn, self.act, self.cv7 = nn.BatchNorm2d(2 * c), joint(), Conv(act, 2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv6(self.cv5(torch.cat(pools(self.cv4(self.cv3(self.cv1(x)))), 1)))
        return self.cv7(self.act(self.bn(torch.cat((y, self.cv2(x)), 1))))


@standing_in("models.common")
class Focus(nn.Module):
    def __init__(self, act: Make, c1: int, c2: int, k: int = 1) -> None:
        super().__init__()
        self.conv = Conv(act, 4 * c1, c2, k)

    def forward(self, x: Tensor) -> Tensor:
        squares = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(squares, 1))


@standing_in("models.common")
class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d = 1

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


@standing_in("models.yolo")
class Detect(nn.Module):
    def __init__(self, anchors: Tensor, stride: Tensor, ch: list[int], old: bool) -> None:
        super().__init__()
        self.nc, self.no = CLASSES, 5 + CLASSES
        self.nl, self.na = anchors.shape[:2]
        self.grid, self.stride = [torch.zeros(1)] * self.nl, stride
        self.register_buffer("anchors", anchors / stride.view(-1, 1, 1))
        if old:
            self.register_buffer("anchor_grid", anchors.clone().view(self.nl, 1, -1, 1, 1, 2))
            self.export = False
        else:
            self.anchor_grid, self.inplace = [torch.zeros(1)] * self.nl, True
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)

    def forward(self, levels: list[Tensor]) -> Tensor:
        found = []
        for x, conv, anchors, stride in zip(levels, self.m, self.anchors, self.stride, strict=True):
            y = conv(x)
            batch, _, rows, columns = y.shape
            y = y.view(batch, self.na, self.no, rows, columns).permute(0, 1, 3, 4, 2).sigmoid()
            cells = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            xy = (y[..., :2] * 2 - 0.5 + torch.stack(cells[::-1], -1)) * stride
            wh = (y[..., 2:4] * 2) ** 2 * (anchors * stride).view(1, -1, 1, 1, 2)
            found.append(torch.cat((xy, wh, y[..., 4:]), -1).reshape(batch, -1, self.no))
        return torch.cat(found, 1)


class Model(nn.Module):
    """A model of the rows of one of the zoo's files, narrower."""

    def __init__(
        self, name: str, width: float, depth: float, act: Make, joint: Make, eps: float, old: bool
    ) -> None:
        super().__init__()
        raw = yaml.safe_load((ZOO / f"{name}.yaml").read_text())
        self.yaml = {key: raw[key] for key in ("anchors", "backbone", "head")}
        self.yaml |= {"nc": CLASSES, "depth_multiple": depth, "width_multiple": width}
        self.nc, self.names, self.yaml_file = CLASSES, list(NAMES), f"{name}.yaml"
        self.hyp, self.gr = {"lr0": 0.01, "anchor_t": 4.0, "box": np.float64(0.05)}, 1.0
        self.class_weights = torch.ones(CLASSES)
        rows, channels, strides = [*raw["backbone"], *raw["head"]], [3], [1]
        modules: list[nn.Module] = []
        for index, (source, number, kind, args) in enumerate(rows):
            sources = source if isinstance(source, list) else [source]
            places = [index if s == -1 else index + 1 + s if s < 0 else s + 1 for s in sources]
            count = max(round(number * depth), 1)
            module, c, stride = self._make(
                kind, count, args, [channels[p] for p in places], width, (act, joint, old)
            )
            module.i, module.f, module.type, module.np = index, source, f"models.common.{kind}", 0
            modules.append(module)
            channels.append(c)
            strides.append(strides[places[0]] * stride)
        self.model = nn.Sequential(*modules)
        self.save = sorted({s for m in modules for s in (m.f if isinstance(m.f, list) else [m.f]) if s != -1})
        head = self.model[-1]
        self.stride = head.stride = torch.tensor([float(strides[s + 1]) for s in head.f])
        head.anchors /= head.stride.view(-1, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = eps, 0.03

    def _make(self, kind: str, number: int, args: list[Any], c: list[int], width: float, how: Any) -> Any:
        act, joint, old = how
        if kind == "Detect":
            anchors = torch.tensor(self.yaml["anchors"]).float().view(len(c), -1, 2)
            return Detect(anchors, torch.ones(len(c)), c, old), 0, 1
        if kind == "Concat":
            return Concat(), sum(c), 1
        if kind == "nn.Upsample":
            return nn.Upsample(None, 2, "nearest"), c[0], 0.5
        out, rest = math.ceil(args[0] * width / 8) * 8, args[1:]
        cls = globals()[kind]
        if kind in ("BottleneckCSP", "BottleneckCSP2", "SPPCSP"):
            return cls(act, joint, c[0], out, number, *rest), out, 1
        if kind == "C3":
            return cls(act, c[0], out, number, *rest), out, 1
        made = [cls(act, c[0], out, *rest) for _ in range(number)]
        stride = 2 if kind == "Focus" else rest[1] if kind == "Conv" and len(rest) > 1 else 1
        return made[0] if number == 1 else nn.Sequential(*made), out, stride

    def forward(self, x: Tensor) -> Any:
        kept: list[Tensor] = []
        for m in self.model:
            if m.f != -1:
                x = kept[m.f] if isinstance(m.f, int) else [x if s == -1 else kept[s] for s in m.f]
            x = m(x)
            kept.append(x)
        return x


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


@standing_in("models.yolo")
class DetectionModel(Model):
    pass


standing_in("models.yolo")(Model)
AutoShape = standing_in("models.common")(type("AutoShape", (Wrapper,), {}))
DetectMultiBackend = standing_in("models.common")(type("DetectMultiBackend", (Wrapper,), {}))


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)
