"""Detectors against the reference implementations, and against the shapes that they promise."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import Detector, build
from model.layers import LAYERS
from model.rows import RULES
from model.spec import ModelError, load_spec, zoo_names

# Trainable parameters at 80 classes, as the reference programs count them.
PARAMETERS = {
    "yolov5n": 1_872_157,
    "yolov5s": 7_235_389,
    "yolov5m": 21_190_557,
    "yolov5l": 46_563_709,
    "yolov5x": 86_749_405,
    "yolov5n6": 3_246_940,
    "yolov5s6": 12_626_620,
    "yolov5m6": 35_731_932,
    "yolov5l6": 76_770_172,
    "yolov5x6": 140_794_780,
    "yolov5s-v4.0": 7_276_605,
    "yolov5m-v4.0": 21_375_645,
    "yolov5l-v4.0": 47_056_765,
    "yolov5x-v4.0": 87_775_965,
    "yolov5s-v3.1": 7_468_157,
    "yolov5m-v3.1": 21_805_053,
    "yolov5l-v3.1": 47_818_749,
    "yolov5x-v3.1": 88_965_245,
    "yolov3-tiny": 8_852_366,
    "yolov3": 61_949_149,
    "yolov3-spp": 62_998_749,
    "yolov4-csp": 52_924_765,
    "yolov4-p5": 70_834_012,
    "yolov4-p6": 127_590_576,
    "yolov4-p7": 287_575_580,
    # The two that darknet publishes, as PyTorch programs count them.
    "yolov4": 64_363_101,
    "yolov4-tiny": 6_056_606,
}
# Scaled-YOLOv4 P5 with one class, row by row.
P5_ROWS = (
    *(928, 18_560, 19_904, 73_984, 161_152, 295_424, 2_614_016, 1_180_672, 10_438_144, 4_720_640, 20_728_832),
    *(7_610_368, 131_584, 0, 131_584, 0, 2_298_880, 33_024, 0, 33_024, 0, 576_000, 295_424, 295_424, 0),
    *(2_298_880, 1_180_672, 1_180_672, 0, 9_185_280, 4_720_640, 43_080),
)
# Our name, or the kind of user's file, by the name of the golden vector.
GOLDEN = {
    "yolov5n": "yolov5n",
    "yolov5s": "yolov5s",
    "yolov5s6": "yolov5s6",
    "yolov3-tiny": "yolov3-tiny",
    "yolov3-spp": "yolov3-spp",
    "yolov5s-v4": "yolov5s-v4.0",
    "yolov4-csp": "yolov4-csp",
    "yolov4-p5": "yolov4-p5",
}


@pytest.fixture(params=GOLDEN, ids=str, scope="module")
def reference(request: pytest.FixtureRequest, golden: Callable[[str], Any]) -> Any:
    """Return a golden vector and our detector of the same name with its weights."""
    vector, detector = golden(request.param), build(GOLDEN[request.param])
    vector.fill(detector)
    return vector, detector


def count(detector: nn.Module) -> int:
    return sum(parameter.numel() for parameter in detector.parameters() if parameter.requires_grad)


def raw_levels(detector: Detector, images: Tensor) -> list[Tensor]:
    output = detector.train()(images)
    assert isinstance(output, list)
    return output


# ---- against the references


def test_the_zoo_holds_the_models_whose_parameters_are_known_and_one_from_a_description() -> None:
    assert set(zoo_names()) == {*PARAMETERS, "yolov5l-cbam"}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameters_are_as_many_as_the_reference_has(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert count(build(name)) == expected


def test_p5_has_the_published_parameters_row_by_row_in_476_tensors() -> None:
    with torch.device("meta"):
        detector = build("yolov4-p5", classes=1)
    assert tuple(count(row) for row in detector.model) == P5_ROWS
    assert len(list(detector.parameters())) == 476  # which its program prints as layers


def test_keys_shapes_and_counts_equal_the_references(reference: Any) -> None:
    golden, detector = reference
    ours = {key: list(value.shape) for key, value in detector.state_dict().items() if "anchor" not in key}
    assert ours == golden.meta["state"]
    assert list(ours) == list(golden.meta["state"])
    assert count(detector) == golden.meta["params"]
    assert detector.strides == tuple(golden.meta["strides"])
    assert detector.anchors.flatten(1).tolist() == golden.meta["anchors"]


@pytest.mark.parametrize(("name", "kind"), [("yolov3-tiny", "tiny"), ("yolov5s-v4", "small_v4")])
def test_a_users_file_gives_the_keys_of_its_program(
    golden: Callable[[str], Any], user_file: Callable[..., Path], name: str, kind: str
) -> None:
    with torch.device("meta"):
        state = build(user_file(kind)).state_dict()
    assert {key: list(t.shape) for key, t in state.items() if "anchor" not in key} == golden(name).meta[
        "state"
    ]


def test_raw_levels_equal_the_references(reference: Any) -> None:
    golden, detector = reference
    with torch.no_grad():
        levels = raw_levels(detector, golden.images)
        apart = [(a[:1] - b).abs().max().item() for a, b in zip(levels, golden.raw, strict=True)]
        if max(apart) < 1e-4:  # 0 to the last bit, on a CPU whose sums run as the references' did
            return
        # Batch norm over few values magnifies the last bits, and another CPU rounds them otherwise: then no further
        # apart than these very layers are from themselves in float64.
        exact = raw_levels(copy.deepcopy(detector).double(), golden.images.double())
    noise = [(a - b).abs().max().item() for a, b in zip(levels, exact, strict=True)]
    assert all(one < 3 * other for one, other in zip(apart, noise, strict=True))


def test_decoded_predictions_equal_the_references(reference: Any) -> None:
    golden, detector = reference
    if golden.decoded is None:
        return  # the references overflow there
    golden.fill(detector)  # train mode has moved the running statistics
    with torch.no_grad():
        decoded, _ = detector.eval()(golden.images)
    assert decoded[:1].shape == golden.decoded.shape
    assert torch.allclose(decoded[:1], golden.decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["yolov5n", "yolov4-tiny"])
def test_training_rounds_alike_on_one_thread_and_on_two(name: str) -> None:
    threads = torch.get_num_threads()
    detector, images = build(name, classes=2), torch.rand(2, 3, 64, 96)
    results = []
    try:
        for count_of_threads in (1, 2):
            torch.set_num_threads(count_of_threads)
            with torch.no_grad():
                results.append(raw_levels(detector, images))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


# ---- shapes and modes


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (64, 160), (96, 32)])
def test_any_classes_and_rectangles_give_the_promised_shapes(classes: int, size: tuple[int, int]) -> None:
    detector = build("yolov5n", classes=classes)
    images = torch.rand(2, 3, *size)
    shapes = [(2, 3, size[0] // stride, size[1] // stride, 5 + classes) for stride in (8, 16, 32)]
    assert [tuple(level.shape) for level in raw_levels(detector, images)] == shapes
    decoded, raw = detector.eval()(images)
    assert [tuple(level.shape) for level in raw] == shapes
    assert decoded.shape == (2, sum(3 * rows * columns for _, _, rows, columns, _ in shapes), 5 + classes)


def test_an_empty_batch_gives_empty_predictions() -> None:
    decoded, raw = build("yolov5n", classes=2).eval()(torch.empty(0, 3, 64, 64))
    assert decoded.shape == (0, 3 * (64 + 16 + 4), 7)
    assert all(len(level) == 0 for level in raw)


@pytest.mark.parametrize("shape", [(1, 3, 64, 65), (1, 3, 48, 64), (3, 64, 64)])
def test_images_off_the_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="both sides multiples of 32, but got"):
        build("yolov5n", classes=1)(torch.zeros(shape))


def test_every_parameter_is_reached_by_the_gradient() -> None:
    detector = build("yolov5n", classes=2)
    torch.stack(
        [level.square().mean() for level in raw_levels(detector, torch.rand(2, 3, 64, 64))]
    ).sum().backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_channels_last_changes_speed_and_not_results() -> None:
    detector = build("yolov5n", classes=2).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        plain, _ = detector(images)
        last, _ = detector.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, last, rtol=1e-4, atol=1e-3)


def test_a_copy_and_a_reloaded_state_predict_the_same() -> None:
    first, second = build("yolov5n", classes=2), build("yolov5n", classes=2)
    raw_levels(first, torch.rand(2, 3, 64, 64))  # moves the running statistics
    second.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = first.eval()(images)[0]
        assert torch.equal(second.eval()(images)[0], expected)
        assert torch.equal(copy.deepcopy(first)(images)[0], expected)


def test_a_detector_works_on_whatever_device_holds_it() -> None:
    with torch.device("meta"):
        detector = build("yolov5s6", classes=2).eval()
    decoded, raw = detector(torch.empty(2, 3, 64, 128, device="meta"))
    assert {decoded.device.type, *(level.device.type for level in raw)} == {"meta"}
    assert decoded.shape == (2, 3 * (128 + 32 + 8 + 2), 7)


def test_state_holds_nothing_but_weights_statistics_and_anchors() -> None:
    detector = build("yolov5n", classes=2).eval()
    keys = set(detector.state_dict())
    detector(torch.rand(1, 3, 64, 96))
    assert set(detector.state_dict()) == keys
    assert {key for key in keys if "anchor" in key} == {"model.24.anchors"}


# ---- what goes in


def test_given_anchors_and_classes_reach_the_head() -> None:
    anchors = np.arange(1.0, 25.0).reshape(3, 4, 2)
    detector = build(load_spec("yolov5n"), classes=5, anchors=anchors)
    assert (detector.classes, detector.head.per_level) == (5, 4)
    assert detector.anchors.dtype == torch.float32
    assert np.allclose(detector.anchors.numpy(), anchors)
    assert raw_levels(detector, torch.rand(2, 3, 64, 64))[0].shape == (2, 4, 8, 8, 10)


def test_loaded_state_brings_its_anchors_along() -> None:
    custom = build("yolov5n", classes=1, anchors=np.arange(1.0, 19.0).reshape(3, 3, 2))
    plain = build("yolov5n", classes=1)
    plain.load_state_dict(custom.state_dict())
    assert torch.equal(plain.anchors, custom.anchors)


def test_a_detector_is_built_again_from_its_plain_description() -> None:
    detector = build("yolov5n6", classes=2)
    assert build(detector.spec.to_dict()).spec == detector.spec


def test_another_activation_takes_the_place_of_every_silu(user_file: Callable[..., Path]) -> None:
    detector = build(user_file("small_v4", ("nc: 80", "nc: 80\nactivation: nn.LeakyReLU(0.2)")))
    kinds = [module for module in detector.modules() if isinstance(module, nn.SiLU | nn.LeakyReLU)]
    assert {type(module) for module in kinds} == {nn.LeakyReLU}
    assert all(
        module.negative_slope == 0.2 and module.inplace
        for module in kinds
        if isinstance(module, nn.LeakyReLU)
    )
    assert len(kinds) == sum(isinstance(module, nn.BatchNorm2d) for module in detector.modules())


def test_activations_may_be_rows_of_their_own(user_file: Callable[..., Path]) -> None:
    edit = (
        "[-1, 1, nn.MaxPool2d, [2, 1, 0]]]",
        "[-1, 1, nn.MaxPool2d, [2, 1, 0]],\n   [-1, 1, nn.LeakyReLU, [0.1]]]",
    )
    tail = ("[[19, 15], 1, Detect", "[[20, 16], 1, Detect")
    detector = build(user_file("tiny", edit, tail), classes=1)
    assert isinstance(detector.model[13], nn.LeakyReLU)
    assert [level.shape[-2] for level in raw_levels(detector, torch.rand(2, 3, 64, 64))] == [4, 2]


def test_grey_images_are_taken_where_the_file_says_so(user_file: Callable[..., Path]) -> None:
    detector = build(user_file("tiny", ("nc: 80", "nc: 80\nch: 1")), classes=1)
    assert raw_levels(detector, torch.rand(2, 1, 64, 64))[0].shape == (2, 3, 4, 4, 6)


def test_repeats_of_a_plain_block_are_a_sequence_with_numbered_keys() -> None:
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 3, "Bottleneck", [16]], [-1, 1, "BottleneckCSP", [16]]]
    head = [[[2], 1, "Detect", ["nc", "anchors"]]]
    detector = build({"nc": 1, "anchors": 1, "depth_multiple": 0.67, "backbone": rows, "head": head})
    keys = set(detector.state_dict())
    assert {"model.1.0.cv1.conv.weight", "model.1.1.cv2.bn.bias", "model.2.cv3.weight"} <= keys
    assert not any(key.startswith("model.1.2.") for key in keys)
    assert raw_levels(detector, torch.rand(2, 3, 32, 64))[0].shape == (2, 1, 16, 32, 6)


def test_a_row_that_no_class_takes_is_refused_with_its_place(user_file: Callable[..., Path]) -> None:
    path = user_file("tiny", ("Conv, [16, 3, 1]", "Conv, [16, 3, 1, None, 5]"))
    with pytest.raises(ModelError, match=r"tiny: row 0 \(Conv\): can't be built: .*divisible by groups"):
        build(path)


def test_sizes_that_do_not_fit_are_told_with_their_row(user_file: Callable[..., Path]) -> None:
    path = user_file(
        "small_v4", ("[-1, 1, Conv, [512, 3, 2]],\n   [-1, 9", "[-1, 1, Conv, [512, 3, 2, 0]],\n   [-1, 9")
    )
    with pytest.raises(
        ModelError, match=r"small_v4: row 12 \(Concat\): its inputs must have one size, but got"
    ):
        build(path, classes=1)(torch.zeros(2, 3, 96, 96))


def test_every_module_has_both_a_rule_and_a_class() -> None:
    assert list(LAYERS) == list(RULES)
