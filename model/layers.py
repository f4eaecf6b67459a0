"""Which class each module name of a model file is; `model.rules.RULES` says how its row reads."""

from collections.abc import Callable

from torch import nn

from model.attention import CBAM, CBAMC3, SAM, SE, PointwiseSAM
from model.blocks import (
    C3,
    MP,
    SPP,
    SPPF,
    Bottleneck,
    Concat,
    Conv,
    Conv2d,
    Focus,
    Mish,
    ZeroPad2d,
    batch_norm,
)
from model.blocks_c3 import C3SPP, C3TR, C3x, ChannelSlice, Contract, CrossConv, Expand
from model.blocks_csp import SPPCSP, BottleneckCSP, BottleneckCSP2, VoVCSP
from model.ghost import C3Ghost, DWConv, DWConvTranspose2d, GhostBottleneck, GhostConv, MixConv2d
from model.head import Detect

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "Conv": Conv,
    "DWConv": DWConv,
    "DWConvTranspose2d": DWConvTranspose2d,
    "MixConv2d": MixConv2d,
    "CrossConv": CrossConv,
    "Focus": Focus,
    "Bottleneck": Bottleneck,
    "BottleneckCSP": BottleneckCSP,
    "BottleneckCSP2": BottleneckCSP2,
    "VoVCSP": VoVCSP,
    "C3": C3,
    "C3x": C3x,
    "C3TR": C3TR,
    "C3Ghost": C3Ghost,
    "C3SPP": C3SPP,
    "CBAMC3": CBAMC3,
    "GhostConv": GhostConv,
    "GhostBottleneck": GhostBottleneck,
    "SPP": SPP,
    "SPPF": SPPF,
    "SPPCSP": SPPCSP,
    "MP": MP,
    "SE": SE,
    "SAM": SAM,
    "PointwiseSAM": PointwiseSAM,
    "CBAM": CBAM,
    "Concat": Concat,
    "ChannelSlice": ChannelSlice,
    "Contract": Contract,
    "Expand": Expand,
    "nn.Conv2d": Conv2d,
    "nn.ConvTranspose2d": nn.ConvTranspose2d,
    "nn.BatchNorm2d": batch_norm,
    "nn.Upsample": nn.Upsample,
    "nn.MaxPool2d": nn.MaxPool2d,
    "nn.ZeroPad2d": ZeroPad2d,
    "nn.ReplicationPad2d": nn.ReplicationPad2d,
    "nn.Identity": nn.Identity,
    "nn.ReLU": nn.ReLU,
    "nn.SiLU": nn.SiLU,
    "nn.Mish": Mish,
    "nn.Hardswish": nn.Hardswish,
    "nn.LeakyReLU": nn.LeakyReLU,
    "Detect": Detect,
}
