"""Model files in the formats of YOLOv5 and Scaled-YOLOv4 load as they are; what can't be built is refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model import build
from model.spec import ModelError, load_spec

UserFile = Callable[..., Path]
UP = "nn.Upsample, [None, 2, 'nearest']"
MIDDLE = "[-1, 1, Conv, [512, 3, 2]],\n   [-1, 9, C3, [512]]"  # the stage of stride 16
EDITS = {
    "names of torch in full": (UP, "torch.nn.Upsample, [None, 2, 'nearest']"),
    "words for constants": (UP, "nn.Upsample, ['None', 2, nearest]"),
    "anchors by their number": (
        "anchors:\n  - [10,13, 16,30, 33,23]\n  - [30,61, 62,45, 59,119]\n  - [116,90, 156,198, 373,326]",
        "anchors: 3",
    ),
    "channels rounded as by default": ("nc: 80", "nc: 80\nchannel_multiple: 8"),
    "ghosts": ("C3, [", "C3Ghost, ["),
    "a transformer": ("[-1, 3, C3, [1024, False]]]", "[-1, 3, C3TR, [1024, False]]]"),
    "cross convolutions": ("C3, [", "C3x, ["),
    "weighted from three rows": ("[[-1, 14], 1, Concat", "[[-1, 14, 6], 1, Concat"),
    "mixed kernels": ("[-1, 9, C3, [512]]", "[-1, 1, MixConv2d, [512, [3, 5]]]"),
    "a norm of its own": ("[-1, 9, C3, [512]]", "[-1, 1, nn.BatchNorm2d, []]"),
    "a norm that names its channels": ("[-1, 9, C3, [512]]", "[-1, 1, nn.BatchNorm2d, [512]]"),
    "a pool of Scaled-YOLOv4": ("[-1, 1, Conv, [512, 3, 2]],\n   [-1, 9", "[-1, 1, MP, []],\n   [-1, 9"),
    "a depth-wise way up": (UP, "DWConvTranspose2d, [512, 4, 2, 1]"),
    "depth-wise convolutions": ("Conv, [512, 3, 2]", "DWConv, [512, 3, 2]"),
    "blocks of Scaled-YOLOv4": ("[-1, 9, C3, [512]]", "[-1, 2, BottleneckCSP2, [512]]"),
    "half of the channels": ("[-1, 9, C3, [512]]", "[-1, 1, VoVCSP, [512]]"),
    "pyramids of Scaled-YOLOv4": ("[-1, 1, SPP, [1024, [5, 9, 13]]]", "[-1, 1, SPPCSP, [1024]]"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_users_file_loads_as_it_is_and_predicts(kind: str, user_file: UserFile) -> None:
    spec = load_spec(user_file("small_v4", EDITS[kind], ("width_multiple: 0.50", "width_multiple: 0.25")))
    with torch.no_grad():
        decoded, raw = build(spec, classes=2).eval()(torch.zeros(1, 3, 64, 128))
    assert [tuple(level.shape[2:4]) for level in raw] == [(8, 16), (4, 8), (2, 4)]
    assert decoded.shape == (1, 3 * (8 * 16 + 4 * 8 + 2 * 4), 7)


def test_rows_of_names_in_full_are_the_same_rows(user_file: UserFile) -> None:
    plain = load_spec(user_file("small_v4"))
    for kind in ("names of torch in full", "words for constants", "channels rounded as by default"):
        assert load_spec(user_file("small_v4", EDITS[kind])) == plain


def test_parts_have_the_names_of_published_weights(user_file: UserFile) -> None:
    mixed = build(user_file("small_v4", EDITS["mixed kernels"]), classes=1).model[6].state_dict()
    assert [key for key in mixed if "running" not in key and "num" not in key] == [
        "m.0.weight",
        "m.1.weight",
        "bn.weight",
        "bn.bias",
    ]
    assert mixed["m.1.weight"].shape == (128, 2, 5, 5)  # 128 of 256 channels, in gcd(256, 128) groups
    up = build(user_file("small_v4", EDITS["a depth-wise way up"]), classes=1).model[11].state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in up.items()} == {
        "weight": (256, 1, 4, 4),
        "bias": (256,),
    }


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            ("[-1, 9, C3, [512]]", "[-1, 1, HarDBlock2, [96, 20, 1.6, 16, True]]"),
            "row 6: unknown module 'HarDBlock2'; known",
        ),
        (
            ("Detect, [nc, anchors]", "Segment, [nc, anchors, 32, 256]"),
            "row 24: unknown module 'Segment'; known",
        ),
        (
            ("Detect, [nc, anchors]", "Detect, [nc, anchors, 17]"),
            r"row 24 \(Detect\): args must be \[nc, anchors\]",
        ),
        (("[[17, 20, 23], 1, Detect", "[[], 1, Detect"), r"row 24: from must name a row, but got \[\]"),
        (
            ("SPP, [1024, [5, 9, 13]]", "nn.Conv2d, [na * (nc + 5), 1]"),
            r"row 8 \(nn.Conv2d\): unknown argument 'na \* \(nc",
        ),
        (
            ("nc: 80", "nc: 80\nchannel_multiple: 4"),
            "channel_multiple must be 8, to which all published models",
        ),
        (
            ("[-1, 9, C3, [512]]", "[-1, 1, MixConv2d, [512, 3]]"),
            r"row 6 \(MixConv2d\): kernels must be a list",
        ),
        (
            ("[[-1, 6], 1, Concat", "[[-1, 13], 1, Concat"),
            r"row 12 \(Concat\): from must name an earlier row, but got 13",
        ),
        (
            ("[[-1, 6], 1, Concat", "[[-1, 12], 1, Concat"),
            r"row 12 \(Concat\): from must name an earlier row, but got 12",
        ),
        (
            ("[[-1, 6], 1, Concat", "[[-1, 4], 1, Concat"),
            r"row 12 \(Concat\): its inputs must have one stride, but row 11",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_row(
    edit: tuple[str, str], message: str, user_file: UserFile
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_spec(user_file("small_v4", edit))
    assert "\n" not in str(caught.value)
