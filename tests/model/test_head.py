"""The head: biases it starts from, and what its numbers mean."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model import build
from model.head import Detect

ANCHORS = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]]])
STRIDES = (8, 16)


def head(classes: int = 3) -> Detect:
    return Detect(classes, ANCHORS, STRIDES, (4, 6)).eval()


def levels(batch: int, rows: int, columns: int, classes: int = 3, seed: int = 0) -> list[Tensor]:
    """Return made-up raw levels; the second is half the first in size."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((rows, columns), (rows // 2, columns // 2))
    return [torch.randn(batch, 2, *size, 5 + classes, generator=generator) * 3 for size in sizes]


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_biases_start_from_few_objects_and_even_classes(classes: int) -> None:
    detector = build("yolov5n6", classes=classes)
    for convolution, stride in zip(detector.head.m, detector.strides, strict=True):
        biases = convolution.get_parameter("bias").detach().view(3, 5 + classes)
        assert torch.allclose(biases[:, 4], torch.tensor(math.log(8 / (640 / stride) ** 2)))
        assert torch.allclose(biases[:, 5:], torch.tensor(math.log(0.6 / (classes - 0.99999))))
        assert biases[:, :4].abs().max() < 1


def test_decoding_follows_the_formula_cell_by_cell() -> None:
    raw = levels(2, 4, 6)
    decoded = head().decode(raw)
    place = 0
    for level, anchors, stride in zip(raw, ANCHORS, STRIDES, strict=True):
        sigma = level.sigmoid()
        for anchor in range(2):
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    s = sigma[:, anchor, row, column]
                    x = (2 * s[:, 0] - 0.5 + column) * stride
                    y = (2 * s[:, 1] - 0.5 + row) * stride
                    wide, high = ((2 * s[:, 2 + side]) ** 2 * anchors[anchor, side] for side in (0, 1))
                    expected = torch.cat((torch.stack((x, y, wide, high), 1), s[:, 4:]), 1)
                    assert torch.allclose(decoded[:, place], expected, atol=1e-4)
                    place += 1
    assert place == decoded.shape[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**31))
def test_decoded_boxes_stay_by_their_cell_and_under_four_anchors(
    rows: int, columns: int, batch: int, seed: int
) -> None:
    decoded = head().decode(levels(batch, 2 * rows, 2 * columns, seed=seed))
    assert decoded.shape == (batch, 2 * (4 * rows * columns + rows * columns), 8)
    width, height = 16 * columns, 16 * rows
    reach = 0.5 * max(STRIDES)
    assert ((decoded[..., 0] >= -reach) & (decoded[..., 0] <= width + reach)).all()
    assert ((decoded[..., 1] >= -reach) & (decoded[..., 1] <= height + reach)).all()
    assert ((decoded[..., 2:4] >= 0) & (decoded[..., 2:4] <= 4 * ANCHORS.max())).all()
    assert ((decoded[..., 4:] >= 0) & (decoded[..., 4:] <= 1)).all()


def test_an_empty_batch_decodes_to_nothing() -> None:
    assert head().decode(levels(0, 4, 4)).shape == (0, 2 * (16 + 4), 8)


def test_one_size_after_another_gives_what_a_fresh_head_gives() -> None:
    used = head()
    for rows, columns in [(4, 6), (6, 4), (4, 6), (2, 2)]:
        raw = levels(1, rows, columns)
        assert torch.equal(used.decode(raw), head().decode(raw))


def test_decoding_in_inference_mode_leaves_later_gradients_alone() -> None:
    used = head()
    raw = levels(1, 4, 4)
    with torch.inference_mode():
        used.decode(raw)
    wanted = [level.requires_grad_() for level in raw]
    used.decode(wanted).sum().backward()
    assert all(level.grad is not None and level.grad.any() for level in wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decoded_in_full(dtype: torch.dtype) -> None:
    raw = [level.to(dtype) for level in levels(1, 4, 6)]
    decoded = head().decode(raw)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, head().decode([level.float() for level in raw]))


def test_double_precision_stays_double() -> None:
    assert head().double().decode([level.double() for level in levels(1, 4, 4)]).dtype == torch.float64


def test_anchors_are_kept_in_cells_and_given_in_px() -> None:
    ours = head()
    assert torch.equal(ours.anchors[1], ANCHORS[1] / 16)
    assert torch.equal(ours.anchors_px, ANCHORS)


def test_raw_levels_put_anchors_before_cells_and_outputs_last() -> None:
    ours = head(classes=1).train()
    features = [torch.rand(1, 4, 2, 3), torch.rand(1, 6, 1, 2)]
    raw = ours(features)
    assert isinstance(raw, list)
    plain = ours.m[0](features[0])
    assert torch.equal(raw[0][0, 1, 1, 2], plain[0, 6:12, 1, 2])
