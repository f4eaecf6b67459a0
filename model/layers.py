"""Which class each module name of a model file is; `model.rules.RULES` says how its row reads."""

from torch import nn

from model.attention import CBAM, CBAMC3, SAM, SE, PointwiseSAM
from model.blocks import C3, SPP, SPPF, Bottleneck, Concat, Conv, Conv2d, Focus, Mish
from model.blocks_c3 import C3SPP, C3TR, C3x, ChannelSlice, Contract, CrossConv, Expand
from model.blocks_csp import SPPCSP, BottleneckCSP, BottleneckCSP2, VoVCSP
from model.ghost import C3Ghost, DWConv, GhostBottleneck, GhostConv
from model.head import Detect

LAYERS: dict[str, type[nn.Module]] = {
    "Conv": Conv,
    "DWConv": DWConv,
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
    "nn.Upsample": nn.Upsample,
    "nn.MaxPool2d": nn.MaxPool2d,
    "nn.ZeroPad2d": nn.ZeroPad2d,
    "nn.ReplicationPad2d": nn.ReplicationPad2d,
    "nn.Identity": nn.Identity,
    "nn.ReLU": nn.ReLU,
    "nn.SiLU": nn.SiLU,
    "nn.Mish": Mish,
    "nn.Hardswish": nn.Hardswish,
    "nn.LeakyReLU": nn.LeakyReLU,
    "Detect": Detect,
}
