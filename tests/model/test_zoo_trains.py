"""Every member of the zoo takes a step on its own loss: with one class, with three, on images that are not square."""

import pytest
import torch

from model import build
from model.dropblock import set_dropblock
from model.gains import LossGains
from model.loss import DetectionLoss
from model.spec import load_spec, zoo_names

# The large ones take seconds and gigabytes: `make test-all` tries them.
LIGHT = ("yolov3-tiny", "yolov4-tiny", "yolov5n", "yolov5n6", "yolov5s-v3.1", "yolov5s-v4.0")
HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in zoo_names() if name not in LIGHT]


@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_every_member_takes_a_step_with_one_class_and_with_three(name: str) -> None:
    torch.manual_seed(0)
    for classes in (1, 3):
        spec = load_spec(name, classes=classes)
        detector = build(spec)
        images = torch.rand(2, 3, spec.grid, 2 * spec.grid)
        gains = LossGains(scheme=spec.options.scheme).scaled(classes, 640, len(spec.strides))
        targets = torch.tensor([[0, classes - 1, 0.4, 0.6, 0.3, 0.5], [1, 0, 0.7, 0.2, 0.1, 0.2]])
        total, parts = DetectionLoss(detector, gains)(detector(images), targets)
        total.backward()
        assert torch.isfinite(total)
        assert (parts["cls"] == 0) == (classes == 1)
        without = [key for key, p in detector.named_parameters() if p.grad is None]
        assert without == []
        before = detector.model[0].conv
        weight = next(before.parameters()).detach().clone()
        torch.optim.SGD(detector.parameters(), lr=0.01).step()
        assert not torch.equal(weight, next(before.parameters()))
        with torch.no_grad():
            decoded, raw = detector.eval()(images[:1])
        assert decoded.shape[2] == 5 + classes
        assert [level.shape[2:4] for level in raw] == [
            (spec.grid // stride, 2 * spec.grid // stride) for stride in spec.strides
        ]


@pytest.mark.parametrize("attention", ["sam", "sam-pointwise", "se", "cbam"])
def test_all_options_train_together(attention: str) -> None:
    torch.manual_seed(0)
    model = f"yolov5n?attention={attention}&dropblock=0.1&norm=cmbn&activation=mish&loss=scaled-yolov4"
    detector = build(model, classes=2)
    loss = DetectionLoss(
        detector, LossGains(scheme=detector.spec.options.scheme, box_loss="giou", assignment="iou")
    )
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5], [1, 0, 0.3, 0.3, 0.2, 0.3]])
    images, totals = torch.rand(2, 3, 64, 96), []
    for step in range(12):
        set_dropblock(detector, step / 12)
        total, _ = loss(detector(images), targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
