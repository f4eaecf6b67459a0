import pytest
import torch
from torch import nn

from trainer.tta import VIEWS, augmented_predictions


class Finder(nn.Module):
    """Finds one thing, the bright rectangle of an image, to the pixel, and is sure of it."""

    strides = (32,)

    def forward(self, images):
        rows = []
        for image in images:
            y, x = torch.nonzero(image[0] > 0.75, as_tuple=True)
            box = [(x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2]
            box += [x.max() + 1 - x.min(), y.max() + 1 - y.min()]
            rows.append(torch.tensor([[*map(float, box), 1.0, 1.0]]))
        return torch.stack(rows), []


@pytest.mark.parametrize("size", [(64, 96), (128, 64), (96, 96)])
def test_every_view_finds_a_box_where_it_is(size):
    images = torch.full((2, 3, *size), 0.25)
    boxes = [(12, 20, 40, 52), (30, 8, 60, 33)]
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        image[:, top:bottom, left:right] = 1.0
    found = augmented_predictions(Finder(), images)
    assert found.shape == (2, len(VIEWS), 6)
    for rows, (left, top, right, bottom) in zip(found, boxes, strict=True):
        expected = torch.tensor([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        assert torch.equal(rows[0, :4], expected)
        assert (rows[:, :4] - expected).abs().max() < 2.5  # a pixel of the smallest view, on either side
    assert torch.equal(found[..., 4:], torch.ones(2, len(VIEWS), 2))
