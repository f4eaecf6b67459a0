"""Batch norms folded into the convolutions before them: the same function in eval mode, in fewer steps."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.blocks import Conv

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fuse(module: ModuleT) -> ModuleT:
    """Copy a module in eval mode, without gradients, each `Conv` as one convolution and its activation.

    Outputs agree with the module's to rounding. The copy can't be trained.
    """
    fused = copy.deepcopy(module).eval().requires_grad_(False)
    for each in fused.modules():
        if isinstance(each, Conv) and isinstance(each.bn, nn.BatchNorm2d):
            each.conv = fuse_conv_bn_eval(each.conv, each.bn)
            each.add_module("bn", nn.Identity())
    return fused.requires_grad_(False)
