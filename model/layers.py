"""Which class each module name of a model file is; `model.rows.RULES` says how its row reads."""

from torch import nn

from model.blocks import C3, SPP, SPPF, Bottleneck, BottleneckCSP, Concat, Conv, Focus
from model.head import Detect

LAYERS: dict[str, type[nn.Module]] = {
    "Conv": Conv,
    "Focus": Focus,
    "Bottleneck": Bottleneck,
    "BottleneckCSP": BottleneckCSP,
    "C3": C3,
    "SPP": SPP,
    "SPPF": SPPF,
    "Concat": Concat,
    "nn.Upsample": nn.Upsample,
    "nn.MaxPool2d": nn.MaxPool2d,
    "nn.ZeroPad2d": nn.ZeroPad2d,
    "nn.Identity": nn.Identity,
    "nn.ReLU": nn.ReLU,
    "nn.SiLU": nn.SiLU,
    "nn.Mish": nn.Mish,
    "nn.Hardswish": nn.Hardswish,
    "nn.LeakyReLU": nn.LeakyReLU,
    "Detect": Detect,
}
