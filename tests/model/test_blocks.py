"""The layers by themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.blocks import C3, SPP, SPPF, Bottleneck, Concat, Conv, Focus
from model.blocks_csp import BottleneckCSP

BLOCKS = {
    "Conv": lambda: Conv(6, 8, 3),
    "Bottleneck": lambda: Bottleneck(6, 8),
    "C3": lambda: C3(6, 8, 2),
    "BottleneckCSP": lambda: BottleneckCSP(6, 8, 2),
    "SPP": lambda: SPP(6, 8),
    "SPPF": lambda: SPPF(6, 8),
}


def images(batch: int, channels: int, rows: int, columns: int) -> Tensor:
    return torch.rand(batch, channels, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BLOCKS)
@settings(max_examples=10, deadline=None)
@given(batch=st.integers(0, 2), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_a_block_keeps_batch_and_size(name: str, batch: int, rows: int, columns: int) -> None:
    x = images(batch, 6, rows, columns)
    before = x.clone()
    assert BLOCKS[name]().eval()(x).shape == (batch, 8, rows, columns)
    assert torch.equal(x, before)  # in-place activations must never reach the input


@pytest.mark.parametrize(("kernel", "padding"), [(1, None), (3, None), (6, 2)])
def test_a_convolution_of_stride_two_halves_the_size(kernel: int, padding: int | None) -> None:
    assert Conv(3, 8, kernel, 2, padding)(images(2, 3, 8, 12)).shape == (2, 8, 4, 6)


def test_batch_norm_has_the_figures_that_published_weights_expect() -> None:
    norms = [m for name in BLOCKS for m in BLOCKS[name]().modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > len(BLOCKS)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


def test_activations_work_in_place_and_can_be_left_out() -> None:
    assert all(m.inplace for name in BLOCKS for m in BLOCKS[name]().modules() if isinstance(m, nn.SiLU))
    bare, x = Conv(3, 8, activation=False).eval(), images(1, 3, 4, 4)
    assert torch.equal(bare(x), bare.bn(bare.conv(x)))


@pytest.mark.parametrize(
    ("c_out", "shortcut", "adds"), [(6, True, True), (6, False, False), (8, True, False)]
)
def test_a_bottleneck_has_a_shortcut_only_where_channels_allow_it(
    c_out: int, shortcut: bool, adds: bool
) -> None:
    block = Bottleneck(6, c_out, shortcut).eval()
    x = images(1, 6, 4, 4)
    inner = block.cv2(block.cv1(x))
    assert torch.equal(block(x), x + inner if adds else inner)


def test_c3_stacks_as_many_bottlenecks_as_asked() -> None:
    assert len(C3(8, 8, 3).m) == 3
    assert len(BottleneckCSP(8, 8, 4, shortcut=False).m) == 4
    assert not any(block.add for block in C3(8, 8, 3, shortcut=False).m if isinstance(block, Bottleneck))


def test_sppf_sees_what_spp_sees() -> None:
    slow, fast = SPP(6, 8, (5, 9, 13)).eval(), SPPF(6, 8, 5).eval()
    fast.load_state_dict(slow.state_dict())
    x = images(2, 6, 15, 17)
    assert torch.equal(slow(x), fast(x))


def test_focus_lays_every_pixel_into_channels_in_the_published_order() -> None:
    block = Focus(1, 4, 1, activation=False).eval()
    with torch.no_grad():
        block.conv.conv.weight.copy_(torch.eye(4).view(4, 4, 1, 1))
        out = (
            block(torch.arange(16.0).view(1, 1, 4, 4)) * (1 + 1e-3) ** 0.5
        )  # undoes the eps of the batch norm
    assert out.shape == (1, 4, 2, 2)
    corners = [[0, 2, 8, 10], [4, 6, 12, 14], [1, 3, 9, 11], [5, 7, 13, 15]]
    assert torch.allclose(out.flatten(2)[0], torch.tensor(corners, dtype=torch.float32), atol=1e-4)


def test_concat_lays_channels_together_in_the_order_given() -> None:
    first, second = torch.zeros(2, 3, 4, 5), torch.ones(2, 2, 4, 5)
    joined = Concat()([first, second])
    assert joined.shape == (2, 5, 4, 5)
    assert joined[:, :, 0, 0].tolist() == [[0, 0, 0, 1, 1]] * 2
    assert Concat()([torch.empty(0, 3, 4, 5), torch.empty(0, 2, 4, 5)]).shape == (0, 5, 4, 5)
