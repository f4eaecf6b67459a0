"""A model in figures: what each row costs and sees, and what each level reaches."""

from math import inf

import pytest
import torch
from torch import Tensor, nn

from model import build
from model.anatomy import dissect
from model.receptive import level_reaches, receptive_fields
from model.rules import RULES
from model.spec import load_spec

DETECT = [[-1], 1, "Detect", ["nc", "anchors"]]
# One row each, behind a convolution of stride 2 to 16 channels.
ROWS = {
    "Conv": [-1, 1, "Conv", [16, 5, 2]],
    "two Conv": [-1, 2, "Conv", [16, 3]],
    "DWConv": [-1, 1, "DWConv", [16, 3]],
    "DWConvTranspose2d": [-1, 1, "DWConvTranspose2d", [16, 4, 2, 1]],
    "MixConv2d": [-1, 1, "MixConv2d", [16, [3, 5, 7], 2]],
    "CrossConv": [-1, 1, "CrossConv", [16, 5]],
    "Focus": [-1, 1, "Focus", [16, 3]],
    "Bottleneck": [-1, 2, "Bottleneck", [16]],
    "BottleneckCSP": [-1, 3, "BottleneckCSP", [16]],
    "BottleneckCSP2": [-1, 2, "BottleneckCSP2", [16]],
    "VoVCSP": [-1, 3, "VoVCSP", [16]],
    "C3": [-1, 3, "C3", [16]],
    "C3x": [-1, 2, "C3x", [16]],
    "C3Ghost": [-1, 2, "C3Ghost", [16]],
    "C3SPP": [-1, 1, "C3SPP", [16, [3, 7]]],
    "GhostConv": [-1, 1, "GhostConv", [16, 3, 2]],
    "GhostBottleneck": [-1, 1, "GhostBottleneck", [16, 3, 2]],
    "SPP": [-1, 1, "SPP", [16, [3, 5]]],
    "SPPF": [-1, 1, "SPPF", [16, 3]],
    "SPPCSP": [-1, 2, "SPPCSP", [16]],
    "MP": [-1, 1, "MP", [2]],
    "SAM": [-1, 1, "SAM", [16, 5]],
    "PointwiseSAM": [-1, 1, "PointwiseSAM", [16]],
    "ChannelSlice": [-1, 1, "ChannelSlice", [2, 1]],
    "Contract": [-1, 1, "Contract", [2]],
    "Expand": [-1, 1, "Expand", [2]],
    "nn.Conv2d": [-1, 1, "nn.Conv2d", [16, 3, 1, 1]],
    "nn.ConvTranspose2d": [-1, 1, "nn.ConvTranspose2d", [16, 2, 2]],
    "nn.Upsample": [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    "nn.MaxPool2d": [-1, 1, "nn.MaxPool2d", [3, 1, 1]],
    "nn.ZeroPad2d": [-1, 1, "nn.ZeroPad2d", [[0, 0, 0, 0]]],
    "nn.ReplicationPad2d": [-1, 1, "nn.ReplicationPad2d", [[0, 0, 0, 0]]],
    "nn.LeakyReLU": [-1, 1, "nn.LeakyReLU", [0.1]],
}
EVERYWHERE = ("SE", "CBAM", "CBAMC3", "C3TR")
REST = {"Concat", "Detect", "nn.BatchNorm2d", "nn.Identity", "nn.ReLU", "nn.SiLU", "nn.Mish", "nn.Hardswish"}


def one_row(row: list[object]) -> dict[str, object]:
    backbone = [[-1, 1, "Conv", [16, 3, 2]], row]
    return {"nc": 1, "anchors": 1, "backbone": backbone, "head": [DETECT], "family": "yolov5"}


def soften(module: nn.Module) -> None:
    """Let every value depend on all that it can depend on: positive weights, means instead of maxima."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        soften(child)
    for parameter in module.parameters(recurse=False):
        nn.init.constant_(parameter, 0.1)


def seen(row: nn.ModuleList, size: int) -> int:
    """The side in px of what the middle value of the last row's output depends on."""
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    x: Tensor = image
    for module in row:
        x = module(x)
    x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum().backward()
    assert image.grad is not None
    touched = image.grad[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    return int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1


@pytest.mark.parametrize("name", ROWS)
def test_the_receptive_field_is_what_the_gradient_reaches(name: str) -> None:
    spec = load_spec(one_row(ROWS[name]))
    detector = build(spec).eval().double()
    rows = detector.model[:-1]
    assert isinstance(rows, nn.ModuleList)
    holder = nn.Sequential(rows)
    soften(holder)
    fields = receptive_fields(spec)
    assert seen(rows, 128) == fields[1]
    assert seen(rows[:1], 128) == fields[0] == 3


def test_every_module_has_its_field_tried() -> None:
    tried = {row[2] for row in ROWS.values()} | set(EVERYWHERE) | REST
    assert tried == set(RULES)


@pytest.mark.parametrize("module", EVERYWHERE)
def test_some_modules_see_the_whole_image(module: str) -> None:
    assert receptive_fields(load_spec(one_row([-1, 1, module, [16]])))[1] == inf


def test_a_row_with_several_inputs_sees_what_they_see() -> None:
    fields = receptive_fields(load_spec("yolov3-tiny"))
    spec = load_spec("yolov3-tiny")
    joint = next(layer for layer in spec.layers if layer.module == "Concat")
    assert fields[joint.index] == max(fields[source] for source in joint.sources)


def test_anchors_reach_boxes_within_the_threshold() -> None:
    small, middle, large = level_reaches(load_spec("yolov5s"))
    assert (small.stride, small.widths, small.heights) == (8, (10 / 4, 33 * 4), (13 / 4, 30 * 4))
    assert (middle.stride, large.stride, large.widths) == (16, 32, (116 / 4, 373 * 4))
    assert level_reaches(load_spec("yolov5s"), 2.0)[0].widths == (5, 66)
    plain, attentive = (level_reaches(load_spec(f"yolov5s{tail}"))[1] for tail in ("", "?attention=sam"))
    assert attentive.receptive_field == plain.receptive_field + 6 * 16
    assert level_reaches(load_spec("yolov5s?attention=se"))[0].receptive_field == inf


def test_operations_are_two_for_each_multiply_add_of_the_convolutions() -> None:
    anatomy = dissect(load_spec("yolov5n", classes=3), 320)
    assert anatomy.image_size == (320, 320)
    detector, macs = build("yolov5n", classes=3).eval(), []

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        macs.append(output.numel() * module.weight[0].numel())

    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        detector(torch.zeros(1, 3, 320, 320))
    assert anatomy.gflops == pytest.approx(2 * sum(macs) / 1e9)
    assert anatomy.rows[0].gflops == pytest.approx(2 * macs[0] / 1e9)
    assert anatomy.parameters == sum(p.numel() for p in detector.parameters())


def test_rows_are_described_as_they_are_built() -> None:
    rows = dissect(load_spec("yolov5l-cbam", classes=7), 64).rows
    assert [(row.module, row.number, row.channels, row.stride) for row in rows[:3]] == [
        ("Focus", 1, 64, 2),
        ("Conv", 1, 128, 4),
        ("CBAMC3", 3, 128, 4),
    ]
    assert rows[-1].channels == 0
    assert rows[-1].parameters == (256 + 512 + 512 + 1024 + 4) * 36
