"""Darknet's weights make our detectors give what darknet's configuration says, worked out here layer by layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model import build
from model.darknet import as_darknet, count_numbers
from model.spec import ModelError, load_spec
from model.transfer import build_from, transfer
from model.weights import read_checkpoint

CLASSES = 3
Net = list[tuple[Any, ...]]


def conv(filters: float, size: int, stride: int = 1, act: str = "leaky") -> tuple[Any, ...]:
    return ("conv", int(filters), size, stride, act)


def out(level: int, scale: float) -> Net:
    return [("conv", 3 * (5 + CLASSES), 1, 1, "linear"), ("yolo", level, scale)]


def yolov3(w: float) -> Net:
    """yolov3.cfg, channels times w."""
    net: Net = [conv(32 * w, 3)]
    for filters, number in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        net.append(conv(filters * w, 3, 2))
        net += [conv(filters * w / 2, 1), conv(filters * w, 3), ("shortcut", -3)] * number
    for level, filters, back in ((2, 512, None), (1, 256, 61), (0, 128, 36)):
        if back is not None:
            net += [("route", -4), conv(filters * w, 1), ("upsample",), ("route", -1, back)]
        net += [conv(filters * w, 1), conv(2 * filters * w, 3)] * 3 + out(level, 1.0)
    return net


def yolov3_spp(w: float) -> Net:
    """yolov3-spp.cfg: pools of three sizes after the third convolution of the head, largest first."""
    net = yolov3(w)
    place = net.index(("upsample",)) - 7  # behind three of the seven convolutions before the first output
    spp: Net = [("pool", 5, 1), ("route", -2), ("pool", 9, 1), ("route", -4), ("pool", 13, 1)]
    return [*net[:place], *spp, ("route", -1, -3, -5, -6), conv(512 * w, 1), *net[place:]]


def yolov3_tiny(w: float) -> Net:
    net: Net = []
    for filters in (16, 32, 64, 128, 256):
        net += [conv(filters * w, 3), ("pool", 2, 2)]
    net += [
        conv(512 * w, 3),
        ("pool", 2, 1),
        conv(1024 * w, 3),
        conv(256 * w, 1),
        conv(512 * w, 3),
        *out(1, 1.0),
    ]
    return [
        *net,
        ("route", -4),
        conv(128 * w, 1),
        ("upsample",),
        ("route", -1, 8),
        conv(256 * w, 3),
        *out(0, 1.0),
    ]


def yolov4_tiny(w: float) -> Net:
    net: Net = [conv(32 * w, 3, 2), conv(64 * w, 3, 2)]
    for filters in (64, 128, 256):
        net += [conv(filters * w, 3), ("half", -1), conv(filters * w / 2, 3), conv(filters * w / 2, 3)]
        net += [("route", -1, -2), conv(filters * w, 1), ("route", -6, -1), ("pool", 2, 2)]
    net += [conv(512 * w, 3), conv(256 * w, 1), conv(512 * w, 3), *out(1, 1.05), ("route", -4)]
    return [*net, conv(128 * w, 1), ("upsample",), ("route", -1, 23), conv(256 * w, 3), *out(0, 1.05)]


def yolov4(w: float) -> Net:
    def mish(filters: float, size: int, stride: int = 1) -> tuple[Any, ...]:
        return conv(filters * w, size, stride, "mish")

    net: Net = [mish(32, 3), mish(64, 3, 2), mish(64, 1), ("route", -2), mish(64, 1)]
    net += [mish(32, 1), mish(64, 3), ("shortcut", -3), mish(64, 1), ("route", -1, -7), mish(64, 1)]
    for filters, number in ((64, 2), (128, 8), (256, 8), (512, 4)):
        net += [mish(2 * filters, 3, 2), mish(filters, 1), ("route", -2), mish(filters, 1)]
        net += [mish(filters, 1), mish(filters, 3), ("shortcut", -3)] * number
        net += [mish(filters, 1), ("route", -1, -(3 * number + 4)), mish(2 * filters, 1)]
    net += [
        conv(512 * w, 1),
        conv(1024 * w, 3),
        conv(512 * w, 1),
        ("pool", 5, 1),
        ("route", -2),
        ("pool", 9, 1),
    ]
    net += [
        ("route", -4),
        ("pool", 13, 1),
        ("route", -1, -3, -5, -6),
        conv(512 * w, 1),
        conv(1024 * w, 3),
        conv(512 * w, 1),
    ]
    for filters, back in ((256, 85), (128, 54)):
        net += [conv(filters * w, 1), ("upsample",), ("route", back), conv(filters * w, 1), ("route", -1, -3)]
        net += [conv(filters * w, 1), conv(2 * filters * w, 3)] * 2 + [conv(filters * w, 1)]
    net += [conv(256 * w, 3), *out(0, 1.2)]
    for level, filters, back, scale in ((1, 256, -16, 1.1), (2, 512, -37, 1.05)):
        net += [("route", -4), conv(filters * w, 3, 2), ("route", -1, back)]
        net += [conv(filters * w, 1), conv(2 * filters * w, 3)] * 3 + out(level, scale)
    return net


NETS: dict[str, Callable[[float], Net]] = {
    "yolov3": yolov3,
    "yolov3-spp": yolov3_spp,
    "yolov3-tiny": yolov3_tiny,
    "yolov4": yolov4,
    "yolov4-tiny": yolov4_tiny,
}
WIDTHS = [
    ("yolov3", 0.25),
    ("yolov3-spp", 0.25),
    ("yolov3-tiny", 0.5),
    ("yolov4", 0.25),
    ("yolov4-tiny", 0.5),
]


HEADER_BYTES = 20
PUBLISHED_BYTES = {
    "yolov3": 248_007_048,
    "yolov3-spp": 252_209_544,
    "yolov3-tiny": 35_434_956,
    "yolov4": 257_717_640,
    "yolov4-tiny": 24_251_276,
}
"""Of the files of 80 classes that darknet's authors published."""


class Numbers:
    """Draws what a configuration reads, in its order, and keeps it for the file and by the numbers of layers."""

    def __init__(self, eps: float = 1e-5) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.written: list[Tensor] = []
        self.numbered: dict[str, Tensor] = {}
        self.layer, self.eps = 0, eps

    def draw(self, *shape: int, low: float, high: float, name: str = "") -> Tensor:
        values = torch.rand(shape, generator=self.generator) * (high - low) + low
        self.written.append(values.flatten())
        self.numbered[f"module_list.{self.layer}.{name}"] = values
        return values

    def write(self, path: Path, count: int | None = None) -> None:
        header = np.array([0, 2, 0], "<i4").tobytes() + np.array([32_000], "<i8").tobytes()
        path.write_bytes(header + torch.cat(self.written)[:count].numpy().tobytes())


def convolve(x: Tensor, layer: tuple[Any, ...], numbers: Numbers) -> Tensor:
    _, filters, size, stride, act = layer
    place = "Conv2d" if act == "linear" else "BatchNorm2d"
    shift = numbers.draw(filters, low=-0.5, high=0.5, name=f"{place}.bias")
    norm = None
    if act != "linear":
        scale = numbers.draw(filters, low=0.4, high=0.9, name=f"{place}.weight")
        mean = numbers.draw(filters, low=-0.2, high=0.2, name=f"{place}.running_mean")
        norm = (scale, mean, numbers.draw(filters, low=0.3, high=1.5, name=f"{place}.running_var"))
    reach = (3 / (x.shape[1] * size**2)) ** 0.5 * (0.2 if act == "linear" else 1)
    kernel = numbers.draw(filters, x.shape[1], size, size, low=-reach, high=reach, name="Conv2d.weight")
    y = functional.conv2d(x, kernel, None, stride, size // 2)
    if norm is None:
        return y + shift.view(-1, 1, 1)
    scale, mean, variance = (each.view(-1, 1, 1) for each in norm)
    y = scale * (y - mean) / (variance + numbers.eps).sqrt() + shift.view(-1, 1, 1)
    return functional.leaky_relu(y, 0.1) if act == "leaky" else y * functional.softplus(y).tanh()


def pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Darknet's: what lies outside never wins; a window of 2 at stride 1 reaches beyond the far sides alone."""
    before = size // 2 if size % 2 else 0
    after = size - 1 - before if stride == 1 else 0
    padded = functional.pad(x, (before, after, before, after), value=-torch.inf)
    return functional.max_pool2d(padded, size, stride)


def run(
    net: Net, images: Tensor, anchors: Any, strides: tuple[int, ...], eps: float = 1e-5
) -> tuple[Tensor, Numbers]:
    """What darknet decodes for each level, and the numbers that it read."""
    numbers, kept, found = Numbers(eps), [], {}
    x = images
    for index, layer in enumerate(net):
        kind, numbers.layer = layer[0], index
        if kind == "conv":
            x = convolve(x, layer, numbers)
        elif kind == "shortcut":
            x = x + kept[index + layer[1]]
        elif kind == "route":
            x = torch.cat([kept[i if i >= 0 else index + i] for i in layer[1:]], 1)
        elif kind == "half":
            x = x.chunk(2, 1)[1]
        elif kind == "pool":
            x = pool(x, layer[1], layer[2])
        elif kind == "upsample":
            x = functional.interpolate(x, scale_factor=2)
        else:
            found[layer[1]] = decode(x, torch.tensor(anchors[layer[1]]), strides[layer[1]], layer[2])
        kept.append(x)
    return torch.cat([found[level] for level in sorted(found)], 1), numbers


def decode(x: Tensor, anchors: Tensor, stride: int, scale: float) -> Tensor:
    batch, _, rows, columns = x.shape
    table = x.view(batch, 3, 5 + CLASSES, rows, columns).permute(0, 1, 3, 4, 2)
    cell = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), -1)
    xy = (table[..., :2].sigmoid() * scale - (scale - 1) / 2 + cell) * stride
    wh = table[..., 2:4].exp() * anchors.view(3, 1, 1, 2)
    return torch.cat((xy, wh, table[..., 4:].sigmoid()), -1).reshape(batch, -1, 5 + CLASSES)


def narrow(name: str, width: float) -> Any:
    return load_spec({**load_spec(name, classes=80).to_dict(), "width_multiple": width})


@pytest.mark.parametrize(("name", "published"), PUBLISHED_BYTES.items())
def test_a_file_has_as_many_bytes_as_the_published_one(name: str, published: int) -> None:
    assert HEADER_BYTES + 4 * count_numbers(as_darknet(load_spec(name)), 80) == published


@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_our_detector_with_darknets_weights_gives_what_darknet_gives(
    name: str, width: float, tmp_path: Path
) -> None:
    spec = narrow(name, width)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    wanted, numbers = run(NETS[name](width), images, spec.anchors, spec.strides)
    numbers.write(tmp_path / "net.weights")
    checkpoint = read_checkpoint(tmp_path / "net.weights", spec=spec)
    detector, report = build_from(checkpoint)
    assert report.complete
    assert detector.classes == CLASSES
    with torch.no_grad():
        torch.testing.assert_close(detector(images)[0], wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("name", "width"), [("yolov3-spp", 0.25), ("yolov4", 0.25), ("yolov4-tiny", 0.5)])
def test_tensors_numbered_by_darknets_layers_find_their_places(
    name: str, width: float, tmp_path: Path
) -> None:
    spec = narrow(name, width)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    wanted, numbers = run(NETS[name](width), images, spec.anchors, spec.strides, eps=1e-4)
    path = tmp_path / "best.pt"
    torch.save({"epoch": 3, "model": numbers.numbered, "optimizer": None, "training_results": ""}, path)
    with pytest.raises(ModelError, match=r"best\.pt .*numbered as in a darknet configuration: say the model"):
        read_checkpoint(path)
    detector, report = build_from(read_checkpoint(path, spec=spec))
    assert report.complete
    assert detector.classes == CLASSES
    assert any("does not say how its boxes are decoded" in note for note in report.notes)
    with torch.no_grad():
        torch.testing.assert_close(detector(images)[0], wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(ModelError, match=r"convolutions, but yolov3-tiny has 13|best\.pt .*yolov3-tiny has"):
        read_checkpoint(path, spec=load_spec("yolov3-tiny"))
    extra = {**numbers.numbered, "module_list.3.w": torch.ones(2)}
    torch.save(extra, path)
    with pytest.raises(ModelError, match=r"its tensor .module_list\.3\.w. belongs to no layer"):
        read_checkpoint(path, spec=spec)


def test_the_file_of_a_backbone_fills_its_rows_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    spec = narrow("yolov4-tiny", 0.5)
    _, numbers = run(yolov4_tiny(0.5), torch.zeros(1, 3, 64, 64), spec.anchors, spec.strides)
    first = sum(len(piece) for piece in numbers.written[: 5 * 5])
    numbers.write(tmp_path / "yolov4-tiny.conv.5", first)
    detector = build(spec)
    report = transfer(detector, read_checkpoint(tmp_path / "yolov4-tiny.conv.5", spec=spec))
    assert "its numbers are those of the first rows of yolov4-tiny alone" in report.notes
    assert report.taken[:1] == ("model.0.conv.weight",)
    assert torch.equal(detector.state_dict()["model.0.bn.bias"], numbers.written[0])
    numbers.write(tmp_path / "cut.weights", first + 7)
    with pytest.raises(
        ModelError, match=r"cut\.weights .*numbers, which are neither those of yolov4-tiny nor of its"
    ):
        read_checkpoint(tmp_path / "cut.weights", spec=spec)
    (tmp_path / "short.weights").write_bytes(b"\0" * 10)
    with pytest.raises(ModelError, match="cut short: the header is missing"):
        read_checkpoint(tmp_path / "short.weights", spec=spec)
    with pytest.raises(ModelError, match="darknet's files don't say what they are of: say the model"):
        read_checkpoint(tmp_path / "cut.weights")


def test_a_model_that_darknet_has_in_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "yolov4-csp.weights").write_bytes(bytes(400))
    with pytest.raises(ModelError, match=r"yolov4-csp is no model of darknet's: its row 4 \(BottleneckCSP\)"):
        read_checkpoint(tmp_path / "yolov4-csp.weights", spec=load_spec("yolov4-csp"))


def test_norms_of_another_epsilon_are_made_up_for_and_the_decoding_is_told(tmp_path: Path) -> None:
    spec = narrow("yolov3-tiny", 0.25)
    theirs = load_spec(
        {**spec.to_dict(), "family": "darknet", "activation": "nn.SiLU()", "scale_xy": [1.0, 1.0]}
    )
    count = sum(p.numel() for p in build(theirs).parameters()) + sum(
        b.numel() for n, b in build(theirs).named_buffers() if "running" in n
    )
    numbers = Numbers()
    numbers.draw(count, low=0.001, high=0.02)
    numbers.write(tmp_path / "net.weights")
    checkpoint = read_checkpoint(tmp_path / "net.weights", spec=spec)
    ours = build(spec)
    report = transfer(ours, checkpoint)
    assert report.share == 1
    assert any("boxes are decoded in another way" in note for note in report.notes)
    same = build(theirs)
    same.load_state_dict(build_from(checkpoint)[0].state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(ours.eval()(images)[1], same.eval()(images)[1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
