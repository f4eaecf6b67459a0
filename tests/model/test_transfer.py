"""What of a checkpoint goes into a detector, and what the report says of the rest."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from model import Detector, build
from model.spec import ModelError
from model.transfer import transfer
from model.weights import Checkpoint

HEAD = ("model.24.m.0.weight", "model.24.m.0.bias")


def fresh(seed: int, classes: int = 3, model: str = "yolov5n", **kw: object) -> Detector:
    torch.manual_seed(seed)
    detector = build(model, classes=classes, **kw)
    with torch.no_grad():
        for tensor in detector.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return detector


def checkpoint_of(detector: Detector, names: tuple[str, ...] | None = None) -> Checkpoint:
    state = {k: t.clone() for k, t in detector.state_dict().items() if "anchor" not in k}
    cells = detector.state_dict()["model.24.anchors"]
    return Checkpoint(path=Path("given.pt"), kind="state dict", state=state, names=names, anchors_cells=cells)


def class_rows(tensor: Tensor, classes: int) -> Tensor:
    return tensor.view(3, 5 + classes, -1)


def test_the_same_model_is_taken_whole_and_the_anchors_stay() -> None:
    given = fresh(0)
    detector = fresh(1, anchors=[[[1, 2]] * 3, [[30, 40]] * 3, [[100, 120]] * 3])
    anchors = detector.anchors.clone()
    report = transfer(detector, checkpoint_of(given))
    assert report.complete
    assert report.lines() == [
        "started from given.pt (state dict): 348 of 348 tensors taken, 100.0 % of the parameters"
    ]
    assert torch.equal(detector.anchors, anchors)
    own, theirs = detector.state_dict(), given.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own if "anchor" not in name)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_of_a_head_for_other_classes_the_rows_of_boxes_and_objectness_are_taken(classes: int) -> None:
    given, detector = fresh(0), fresh(1, classes)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    report = transfer(detector, checkpoint_of(given))
    assert not report.fresh
    assert 0.9 < report.share < 1
    assert report.notes == (
        f"{classes} classes here, 3 in the checkpoint: the rows of classes in the head start afresh",
    )
    for name in HEAD:
        ours, theirs = (
            class_rows(detector.state_dict()[name], classes),
            class_rows(given.state_dict()[name], 3),
        )
        assert torch.equal(ours[:, :5], theirs[:, :5])
        assert torch.equal(ours[:, 5:], class_rows(before[name], classes)[:, 5:])


def test_classes_are_found_by_their_names_in_any_order() -> None:
    given, detector = fresh(0), fresh(1, 4)
    before = detector.state_dict()[HEAD[1]].clone()
    report = transfer(
        detector,
        checkpoint_of(given, ("cat", "traffic light", "Dog")),
        ["dog", "horse", "cat", "traffic_light"],
    )
    assert report.notes == ("3 of 4 classes found by name among the checkpoint's 3; horse starts afresh",)
    for name in HEAD:
        ours, theirs = class_rows(detector.state_dict()[name], 4), class_rows(given.state_dict()[name], 3)
        assert torch.equal(ours[:, [5, 7, 8]], theirs[:, [7, 5, 6]])
    assert torch.equal(class_rows(detector.state_dict()[HEAD[1]], 4)[:, 6], class_rows(before, 4)[:, 6])


def test_as_many_classes_of_quite_other_names_are_taken_in_order() -> None:
    given, detector = fresh(0), fresh(1)
    report = transfer(detector, checkpoint_of(given, ("0", "1", "2")), ["a", "b", "c"])
    assert report.complete
    assert torch.equal(detector.state_dict()[HEAD[0]], given.state_dict()[HEAD[0]])


def test_equal_classes_in_another_order_change_places() -> None:
    given, detector = fresh(0), fresh(1)
    transfer(detector, checkpoint_of(given, ("a", "b", "c")), ["c", "a", "b"])
    ours, theirs = (class_rows(each.state_dict()[HEAD[1]], 3) for each in (detector, given))
    assert torch.equal(ours[:, 5:], theirs[:, [7, 5, 6]])


def test_a_smaller_model_leaves_out_what_has_other_shapes_and_says_so() -> None:
    detector = fresh(1, model="yolov5s")
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    given = checkpoint_of(fresh(0, model="yolov5n"))
    state = dict(given.state)
    state["model.0.conv.weight"] = torch.zeros(32, 3, 6, 6)
    state["somewhere.else"] = torch.zeros(1)
    report = transfer(detector, Checkpoint(path=Path("given.pt"), kind="state dict", state=state))
    assert report.taken[0] == "model.0.conv.weight"
    assert report.fresh["model.1.conv.weight"] == "of shape 32×16×3×3 there and 64×32×3×3 here"
    assert "not used, this model has no such tensors: somewhere.else" in report.lines()
    assert torch.equal(detector.state_dict()["model.1.conv.weight"], before["model.1.conv.weight"])
    assert not detector.state_dict()["model.0.conv.weight"].any()


def test_another_number_of_anchors_leaves_the_head_out() -> None:
    detector = fresh(1, anchors=[[[1, 2]] * 2, [[30, 40]] * 2, [[100, 120]] * 2])
    report = transfer(detector, checkpoint_of(fresh(0)))
    assert {name for name in report.fresh if "model.24" in name} == {
        f"model.24.m.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")
    }


def test_a_checkpoint_of_another_kind_of_model_is_refused_and_nothing_is_loaded() -> None:
    detector = fresh(1)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    foreign = Checkpoint(path=Path("other.pt"), kind="state dict", state={"layer1.0.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"other\.pt: none of its 1 tensors fits yolov5n"):
        transfer(detector, foreign)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


def test_norms_that_were_folded_into_convolutions_are_unfolded() -> None:
    given, detector = fresh(0).eval(), fresh(1)
    state = dict(checkpoint_of(given).state)
    for name, module in given.named_modules():
        if hasattr(module, "conv") and hasattr(module, "bn"):
            bn = module.bn
            weight, bias = fuse_conv_bn_weights(
                module.conv.weight, None, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
            )
            state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = weight.data, bias.data
            for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                del state[f"{name}.bn.{kind}"]
    report = transfer(detector, Checkpoint(path=Path("fused.pt"), kind="state dict", state=state))
    assert report.complete
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(detector.eval()(images)[0], given(images)[0], atol=2e-3, rtol=1e-4)
