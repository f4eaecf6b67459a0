"""Model files: what loads, what is mended, what is refused, and that nothing in them is run."""

import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from model.notation import format_px, order_anchors, placeholder_anchors
from model.rows import repeats, widen
from model.spec import Activation, ModelError, ModelSpec, Row, load_spec, spec_to_yaml, zoo_names

UserFile = Callable[..., Path]
COCO = ((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326))

ZOO = {name: load_spec(name) for name in ("yolov5n", "yolov5x")}  # read once: properties try them many times

px = st.integers(1, 4000).map(float) | st.integers(1, 400_000).map(lambda n: n / 100)
pair = st.tuples(px, px)


def levels_of(count: int) -> st.SearchStrategy[list[list[tuple[float, float]]]]:
    level = st.integers(1, 4).flatmap(
        lambda per: st.lists(st.lists(pair, min_size=per, max_size=per), min_size=count, max_size=count)
    )
    return level


# ---- the zoo


def test_the_zoo_lists_its_models_generation_by_generation_and_small_to_large() -> None:
    older = ("yolov3", "yolov3-spp", "yolov3-tiny")
    fourth = ("yolov4", "yolov4-csp", "yolov4-p5", "yolov4-p6", "yolov4-p7", "yolov4-tiny")
    fifth = [f"yolov5{size}" for size in ("n", "s", "m", "l", "x", "n6", "s6", "m6", "l6", "x6", "l-cbam")]
    before = [f"yolov5{size}-{version}" for version in ("v3.1", "v4.0") for size in "smlx"]
    assert zoo_names() == (*older, *fourth, *fifth, *before)


STRIDES = {"yolov3-tiny": (16, 32), "yolov4-tiny": (16, 32), "yolov5l-cbam": (4, 8, 16, 32)}
STRIDES |= {"yolov4-p6": (8, 16, 32, 64), "yolov4-p7": (8, 16, 32, 64, 128)}


@pytest.mark.parametrize("name", zoo_names())
def test_strides_and_grid_are_known_without_building(name: str) -> None:
    spec = load_spec(name)
    six = name.startswith("yolov5") and name.endswith("6")
    expected = STRIDES.get(name, (8, 16, 32, 64) if six else (8, 16, 32))
    assert (spec.name, spec.classes, spec.strides, spec.grid) == (name, 80, expected, max(expected))
    per_level = 4 if name in ("yolov4-p5", "yolov4-p6", "yolov4-p7") else 3
    assert np.shape(spec.anchors) == (len(expected), per_level, 2)
    assert spec.notes == ()


def test_image_sizes_are_those_that_the_models_are_meant_for() -> None:
    named = {"yolov5s": 640, "yolov5s6": 1280, "yolov4-p5": 896, "yolov4-p7": 1536, "yolov4-tiny": 416}
    assert {name: load_spec(name).image_size for name in named} == named


def test_the_anchors_of_the_small_zoo_are_those_of_coco() -> None:
    assert load_spec("yolov5s").anchors == COCO


@pytest.mark.parametrize(
    ("wrong", "right"), [("yolov5z", "yolov5"), ("yolo5n", "yolov5n"), ("YOLOv5S", "yolov5s")]
)
def test_an_unknown_name_is_offered_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ModelError, match=f"unknown model '{wrong}'.*did you mean '{right}"):
        load_spec(wrong)


def test_a_name_like_nothing_known_is_offered_all() -> None:
    with pytest.raises(ModelError, match="known: yolov3, yolov3-spp"):
        load_spec("resnet")


# ---- users' files


def test_a_file_of_an_older_generation_loads_as_it_is(user_file: UserFile) -> None:
    spec = load_spec(user_file("small_v4"))
    assert (spec.name, spec.classes, spec.depth, spec.width) == ("small_v4", 80, 0.33, 0.5)
    assert spec.strides == (8, 16, 32)
    assert spec.rows[11] == Row((-1,), 1, "nn.Upsample", (None, 2, "nearest"))
    assert spec.rows[8].args == (1024, (5, 9, 13))
    assert [layer.channels for layer in spec.layers[:4]] == [32, 64, 64, 128]


def test_two_levels_at_other_strides_load(user_file: UserFile) -> None:
    spec = load_spec(user_file("tiny"))
    assert (spec.strides, spec.grid) == ((16, 32), 32)


def test_a_path_may_be_a_string_or_end_in_yml(user_file: UserFile) -> None:
    path = user_file("tiny")
    short = path.rename(path.with_suffix(".yml"))
    assert load_spec(str(short)) == load_spec(short)


def test_a_grid_finer_than_32_px_is_still_32() -> None:
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [32, 3, 2]]]
    spec = load_spec(
        {"nc": 1, "anchors": 2, "backbone": rows, "head": [[[0, 1], 1, "Detect", ["nc", "anchors"]]]}
    )
    assert (spec.strides, spec.grid) == ((2, 4), 32)


def test_anchors_as_a_count_stand_in_and_are_noted(user_file: UserFile) -> None:
    path = user_file(
        "tiny", ("anchors:\n  - [10,14, 23,27, 37,58]\n  - [81,82, 135,169, 344,319]", "anchors: 4")
    )
    spec = load_spec(path)
    assert np.shape(spec.anchors) == (2, 4, 2)
    assert np.all(np.diff(np.prod(spec.anchors, axis=2).ravel()) > 0)
    assert any("only counted (4 a level)" in note for note in spec.notes)


@pytest.mark.parametrize("count", [0, -1, True, 10**9])
def test_a_count_of_anchors_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ModelError, match="anchors per level must be a whole number from 1"):
        load_spec("yolov5n", anchors=count)


def test_anchors_given_in_pairs_load_like_flat_ones(user_file: UserFile) -> None:
    pairs = user_file(
        "tiny",
        ("[10,14, 23,27, 37,58]", "[[10, 14], [23, 27], [37, 58]]"),
        ("[81,82, 135,169, 344,319]", "[[81, 82], [135, 169], [344, 319]]"),
    )
    spec = load_spec(pairs)
    assert spec.anchors[0] == ((10, 14), (23, 27), (37, 58))


def test_reversed_anchors_are_turned_round_and_noted(user_file: UserFile) -> None:
    path = user_file(
        "tiny", ("  - [10,14, 23,27, 37,58]\n", ""), ("344,319]", "344,319]\n  - [10,14, 23,27, 37,58]")
    )
    spec = load_spec(path)
    assert spec.anchors[0] == ((10, 14), (23, 27), (37, 58))
    assert len(spec.notes) == 1
    assert "anchors ran against strides 16, 32" in spec.notes[0]


def test_anchors_follow_a_detect_that_names_its_levels_large_to_small(user_file: UserFile) -> None:
    spec = load_spec(user_file("tiny", ("[[19, 15], 1", "[[15, 19], 1")))
    assert spec.strides == (32, 16)
    assert spec.anchors[0][0] == (81, 82)
    assert "turned round" in spec.notes[0]


def test_classes_and_anchors_given_take_the_place_of_the_files() -> None:
    anchors = np.arange(1.0, 13.0).reshape(3, 2, 2)
    spec = load_spec("yolov5n", classes=7, anchors=anchors)
    assert spec.classes == 7
    assert np.array_equal(spec.anchors, anchors)
    assert load_spec("yolov5n", anchors=anchors.reshape(3, 4)).anchors == spec.anchors


def test_a_spec_can_be_loaded_again_with_other_classes_and_keeps_its_notes(user_file: UserFile) -> None:
    first = load_spec(user_file("tiny", ("[[19, 15], 1", "[[15, 19], 1")))
    again = load_spec(first, classes=2)
    assert again == replace(first, classes=2)
    assert again.notes == first.notes


def test_a_key_that_means_nothing_here_is_noted(user_file: UserFile) -> None:
    spec = load_spec(user_file("tiny", ("nc: 80", "nc: 80\nlicence_of_weights: mine")))
    assert spec.notes == (f"{user_file('tiny')}: key 'licence_of_weights' is not used",)


def test_numbers_that_yaml_takes_for_words_are_numbers(user_file: UserFile) -> None:
    path = user_file("small_v4", ("C3, [128]", "C3, ['128', True, 1, 5e-1]"))
    with pytest.raises(
        ModelError, match=r"row 2 \(C3\): channels must be a whole number from 1, but got 128.0"
    ):
        load_spec(path)
    spec = load_spec(user_file("small_v4", ("C3, [128]", "C3, [128, True, 1, 5e-1]")))
    assert spec.rows[2].args == (128, True, 1, 0.5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nn.LeakyReLU(0.1)", Activation("nn.LeakyReLU", 0.1)),
        ("nn.LeakyReLU(negative_slope=0.1, inplace=True)", Activation("nn.LeakyReLU", 0.1)),
        ("torch.nn.Mish()", Activation("nn.Mish")),
        ("nn.Hardswish", Activation("nn.Hardswish")),
        ("nn.SiLU()", None),
    ],
)
def test_an_activation_is_read_without_running_it(
    user_file: UserFile, written: str, meant: Activation | None
) -> None:
    spec = load_spec(user_file("tiny", ("nc: 80", f"nc: 80\nactivation: {written}")))
    assert spec.activation == meant
    assert load_spec(spec.to_dict()) == spec


# ---- what is refused


HOSTILE = "__import__('os').system('touch owned')"


@pytest.mark.parametrize(
    "edit",
    [
        ("Focus, [64, 3]", f'Focus, [64, "{HOSTILE}"]'),
        ("Focus, [64, 3]", f'"{HOSTILE}", [64, 3]'),
        ("nc: 80", f'nc: "{HOSTILE}"'),
        ("depth_multiple: 0.33", f'depth_multiple: "{HOSTILE}"'),
        ("nc: 80", f'nc: 80\nactivation: "{HOSTILE}"'),
        ("nc: 80", f'nc: 80\nactivation: "nn.LeakyReLU({HOSTILE})"'),
        ("[10,13, 16,30, 33,23]", f'["{HOSTILE}", 13, 16, 30, 33, 23]'),
        ("nc: 80", 'nc: !!python/object/apply:os.system ["touch owned"]'),
        ("[-1, 1, Focus", f'["{HOSTILE}", 1, Focus'),
    ],
)
def test_code_in_a_file_is_refused_and_not_run(
    user_file: UserFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str]
) -> None:
    path = user_file("small_v4", edit)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"small_v4\.yaml") as raised:
        load_spec(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("[-1, 3, C3, [128]]", "[-1, 3, C33, [128]]"), r"row 2: unknown module 'C33'; did you mean 'C3'"),
        (("nn.Upsample", "nn.upsampel"), r"row 11: unknown module 'nn.upsampel'; did you mean 'nn.Upsample'"),
        (
            ("'nearest'", "'nearst'"),
            r"row 11 \(nn.Upsample\): unknown argument 'nearst'; did you mean 'nearest'",
        ),
        (("Detect, [nc, anchors]", "Detect, [nc, ancors]"), r"row 24 \(Detect\): .*did you mean 'anchors'"),
        (("Detect, [nc, anchors]", "Detect, [nc]"), r"row 24 \(Detect\): args must be \[nc, anchors\]"),
        (("Detect, [nc, anchors]", "Detect, [80, anchors]"), r"nc must be the name nc, but got 80"),
        (("Detect, [nc", "Concat, [nc"), r"row 24 \(Concat\): the last row, and no other, must be Detect"),
        (("[-1, 3, C3, [128]]", "[-1, 0, C3, [128]]"), r"row 2: number must be a whole number from 1"),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3, [0]]"), r"row 2 \(C3\): channels must be a whole number from 1"),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3, []]"), r"row 2 \(C3\): args must be \[channels, shortcut"),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3, [128, 1, 1, 1, 1]]"), r"row 2 \(C3\): args must be"),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3, [128, maybe]]"), r"row 2 \(C3\): unknown argument 'maybe'"),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3, [128, 3]]"), r"row 2 \(C3\): shortcut must be True or False"),
        (
            ("[-1, 3, C3, [128]]", "[-1, 3, C3, [128, True, 1, .inf]]"),
            r"expansion must be a number over 0, but got inf",
        ),
        (("[-1, 3, C3, [128]]", "[-1, 3, C3]"), r"row 2: must be \[from, number, module, \[args\]\]"),
        (("[-1, 3, C3, [128]]", "C3"), r"row 2: must be \[from, number, module, \[args\]\]"),
        (("[-1, 3, C3, [128]]", "[[], 3, C3, [128]]"), r"row 2: from must name a row, but got \[\]"),
        (
            ("[-1, 3, C3, [128]]", "[2, 3, C3, [128]]"),
            r"row 2 \(C3\): from must name an earlier row, but got 2",
        ),
        (
            ("[-1, 3, C3, [128]]", "[-4, 3, C3, [128]]"),
            r"row 2 \(C3\): from must name an earlier row, but got -4",
        ),
        (("[-1, 3, C3, [128]]", "[[0, 1], 3, C3, [128]]"), r"row 2 \(C3\): from must name one row"),
        (("[[-1, 6], 1, Concat", "[[-1, 5], 2, Concat"), r"row 12 \(Concat\): number must be 1"),
        (
            ("[[-1, 6], 1, Concat", "[[-1, 4], 1, Concat"),
            r"row 12 .*one stride, but row 11 has 16, row 4 has 8",
        ),
        (("[5, 9, 13]", "[5, 9, x]"), r"row 8 \(SPP\): each number of a list must be a whole number"),
        (("nc: 80", "nc: 0"), r"nc \(classes\) must be a whole number from 1"),
        (
            ("nc: 80", "nc: 80\nwidht_multiple: 2"),
            r"unknown key 'widht_multiple'; did you mean 'width_multiple'",
        ),
        (("nc: 80\n", ""), r"key 'nc' must be given"),
        (("head:", "heads_or_tails:"), r"key 'head' must be given"),
        (("width_multiple: 0.50", "width_multiple: -1"), r"width_multiple must be a number over 0"),
        (("width_multiple: 0.50", "width_multiple: .nan"), r"width_multiple must be a number over 0"),
        (("  - [116,90, 156,198, 373,326]\n", ""), r"anchors must have 3 levels .* got shape \(2, 6\)"),
        (("373,326", "373"), r"anchors must be numbers, as many in each level"),
        (("373,326", "373,-326"), r"anchors must be finite px over 0"),
        (("373,326", "373,.nan"), r"anchors must be finite px over 0"),
        (
            ("nc: 80", "nc: 80\nactivation: nn.Relu()"),
            r"unknown activation 'nn.Relu\(\)'; did you mean 'nn.ReLU'",
        ),
        (("nc: 80", "nc: 80\nactivation: nn.ReLU(0.1)"), r"activation nn.ReLU takes no '0.1'"),
        (("nc: 80", "nc: [80"), r"not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(
    user_file: UserFile, edit: tuple[str, str], message: str
) -> None:
    path = user_file("small_v4", edit)
    with pytest.raises(ModelError, match=message) as raised:
        load_spec(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_stack_must_keep_its_channels(user_file: UserFile) -> None:
    with pytest.raises(
        ModelError, match=r"row 2 \(Conv\): 2 in a stack must keep the channels, but 64 go in and 128"
    ):
        load_spec(user_file("small_v4", ("[-1, 3, C3, [128]]", "[-1, 6, Conv, [256]]")))


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    missing, listed, folder, binary = (
        tmp_path / f"{stem}.yaml" for stem in ("yolov5s", "listed", "folder", "binary")
    )
    listed.write_text("[1, 2]", encoding="utf-8")
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(ModelError, match="there is no such file; the name 'yolov5s' is in the zoo"):
        load_spec(missing)
    with pytest.raises(ModelError, match=r"listed\.yaml: a model file must be a mapping .* but got \[1, 2\]"):
        load_spec(listed)
    with pytest.raises(ModelError, match=r"folder\.yaml: the file can't be read"):
        load_spec(folder)
    with pytest.raises(ModelError, match=r"binary\.yaml: the file can't be read"):
        load_spec(binary)


def test_yaml_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 1500 + "]" * 1500, encoding="utf-8")
    with pytest.raises(ModelError, match=r"deep\.yaml: not valid YAML"):
        load_spec(path)


@pytest.mark.parametrize(
    "anchors", [[], [[], [], []], np.empty((3, 0, 2)), np.empty((0, 3, 2)), np.ones((9, 2))]
)
def test_empty_or_misshapen_anchors_are_refused(anchors: np.ndarray) -> None:
    with pytest.raises(ModelError, match="anchors must have 3 levels"):
        load_spec("yolov5n", anchors=anchors)


def test_a_model_without_rows_is_refused() -> None:
    with pytest.raises(ModelError, match="must have rows before Detect, but got 0 in all"):
        load_spec({"nc": 1, "anchors": 3, "backbone": [], "head": []})


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (5, "backbone must be a list of rows, but got 5"),
        (
            [[-1, 1, "nn.ZeroPad2d", [[0, 1, 0]]]],
            r"row 0 \(nn.ZeroPad2d\): sides must be a list \[left, right",
        ),
        ([[-1, 1, "nn.ZeroPad2d", [3]]], r"row 0 \(nn.ZeroPad2d\): sides must be a list \[left, right"),
        ([[-1, 1, "Conv", [{"c": 3}]]], r"row 0 \(Conv\): unknown argument \{'c': 3\}"),
        ([[-1, 1, {"Conv": 3}, []]], "row 0: unknown module"),
    ],
)
def test_plain_data_of_the_wrong_kind_is_refused(backbone: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_spec(
            {"nc": 1, "anchors": 3, "backbone": backbone, "head": [[[0], 1, "Detect", ["nc", "anchors"]]]}
        )


def test_a_stride_that_is_no_whole_pixel_is_refused() -> None:
    rows = [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]]
    head = [[[0], 1, "Detect", ["nc", "anchors"]]]
    with pytest.raises(ModelError, match="strides of Detect must be whole px, but got 1/2"):
        load_spec({"nc": 1, "anchors": 3, "backbone": rows, "head": head})


# ---- the spec itself


def test_a_spec_checks_itself_when_made() -> None:
    spec = load_spec("yolov5n")
    with pytest.raises(
        ModelError, match=r"nc \(classes\) must be a whole number from 1 to 100000, but got 0"
    ):
        replace(spec, classes=0)
    with pytest.raises(ModelError, match="anchors must have 3 levels"):
        replace(spec, anchors=spec.anchors[:2])
    with pytest.raises(ModelError, match="depth_multiple must be a number over 0"):
        replace(spec, depth=0)
    with pytest.raises(ModelError, match="anchors must be nested tuples of floats"):
        replace(spec, anchors=[[list(pair) for pair in level] for level in spec.anchors])  # type: ignore[arg-type]


def test_a_spec_cannot_be_changed_and_can_be_pickled() -> None:
    spec = load_spec("yolov5n")
    assert spec.layers[-1].module == "Detect"  # worked out, so that the pickle has to carry it too
    with pytest.raises(FrozenInstanceError):
        spec.classes = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301  (our own bytes)
    assert len({spec, load_spec("yolov5n")}) == 1


@settings(max_examples=50, deadline=None)
@given(anchors=levels_of(3), classes=st.integers(1, 999), name=st.sampled_from(sorted(ZOO)))
def test_a_spec_survives_its_yaml(anchors: list[list[tuple[float, float]]], classes: int, name: str) -> None:
    spec = load_spec(ZOO[name], classes=classes, anchors=anchors)
    text = spec_to_yaml(spec)
    raw = yaml.safe_load(text)
    assert load_spec({**raw, "name": name}) == spec
    assert raw["anchors"] == [[number for pair in level for number in pair] for level in spec.anchors]


@settings(deadline=None)
@given(anchors=st.lists(st.floats(1e-3, 1e4), min_size=12, max_size=12))
def test_a_spec_survives_json_to_the_last_bit(anchors: list[float]) -> None:
    spec = load_spec(ZOO["yolov5n"], anchors=np.reshape(anchors, (3, 2, 2)))
    assert load_spec(json.loads(json.dumps(spec.to_dict()))) == spec


def test_written_yaml_reads_like_a_model_file_of_the_family(user_file: UserFile, tmp_path: Path) -> None:
    spec = load_spec(
        user_file("small_v4", ("nc: 80", "nc: 80\nch: 1\nactivation: nn.LeakyReLU(0.1)")), classes=3
    )
    path = tmp_path / "small_v4.yaml"
    path.write_text(spec_to_yaml(spec), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "nc: 3  # classes" in lines
    assert "  - [10,13, 16,30, 33,23]  # P3/8" in lines
    assert "  - [-1, 1, nn.Upsample, [None, 2, nearest]]  # 11" in lines
    assert "  - [-1, 1, SPP, [1024, [5, 9, 13]]]  # 8" in lines
    assert "  - [[17, 20, 23], 1, Detect, [nc, anchors]]  # 24" in lines
    assert load_spec(path) == spec


def test_anchors_are_written_in_whole_pixels_or_two_decimals() -> None:
    assert [format_px(value) for value in (10.0, 10.5, 10.126, 1234.0, 0.001)] == [
        "10",
        "10.50",
        "10.13",
        "1234",
        "0.01",
    ]


# ---- the numbers behind the rows


@pytest.mark.parametrize(
    ("number", "depth", "expected"),
    [(1, 0.33, 1), (3, 0.33, 1), (9, 0.33, 3), (6, 0.67, 4), (9, 1.33, 12), (2, 0.01, 1)],
)
def test_repeats_are_scaled_and_never_fall_to_nothing(number: int, depth: float, expected: int) -> None:
    assert repeats(number, depth) == expected


@settings(deadline=None)
@given(st.integers(1, 4096), st.floats(0.01, 4))
def test_widened_channels_are_the_next_multiple_of_eight(channels: int, width: float) -> None:
    wide = widen(channels, width)
    assert wide % 8 == 0
    assert wide - 8 < channels * width <= wide


@settings(deadline=None)
@given(levels_of(3))
def test_ordered_anchors_stay_as_they_are_when_ordered_again(
    anchors: list[list[tuple[float, float]]],
) -> None:
    nested = tuple(tuple(level) for level in anchors)
    ordered, turned = order_anchors(nested, (8, 16, 32))
    assert ordered == (nested[::-1] if turned else nested)
    assert order_anchors(ordered, (8, 16, 32)) == (ordered, False)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 4))
def test_placeholders_grow_from_first_to_last(per_level: int, levels: int) -> None:
    squares = np.array(placeholder_anchors(per_level, tuple(8 * 2**level for level in range(levels))))
    assert squares.shape == (levels, per_level, 2)
    assert np.all(np.diff(squares[..., 0].ravel()) > 0)


def test_a_spec_made_by_hand_is_worked_out_like_one_from_a_file() -> None:
    rows = (Row((-1,), 1, "Conv", (16, 3, 2)), Row((-1,), 2, "Bottleneck", (16,)))
    head = (Row((-1,), 1, "Detect", ("nc", "anchors")),)
    spec = ModelSpec("hand", 2, 1.0, 1.0, (((10.0, 10.0),),), rows, head)
    assert spec.strides == (2,)
    assert [layer.stack for layer in spec.layers] == [1, 2, 1]
    assert load_spec(yaml.safe_load(spec_to_yaml(spec)) | {"name": "hand"}) == spec


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row((), 1, "Conv", (16,)), "from must name one row"),
        (Row((-1,), 0, "Conv", (16,)), "number must be at least 1"),
        (Row((-1,), 1, "Cov", (16,)), "unknown module 'Cov'; did you mean 'Conv'"),
    ],
)
def test_a_row_made_by_hand_is_checked_too(row: Row, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelSpec(
            "hand", 2, 1.0, 1.0, (((10.0, 10.0),),), (row,), (Row((-1,), 1, "Detect", ("nc", "anchors")),)
        )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[-1, 1, CBAM, [64]]", r"row 2 \(CBAM\): it must keep the channels, but 64 go in and 32 are asked"),
        (
            "[-1, 1, ChannelSlice, [3, 0]]",
            r"row 2 \(ChannelSlice\): 3 groups must divide its input's channels",
        ),
        (
            "[-1, 1, ChannelSlice, [2, 2]]",
            r"row 2 \(ChannelSlice\): index must be under groups, but got 2 of 2",
        ),
        (
            "[-1, 1, Expand, [3]]",
            r"row 2 \(Expand\): gain² = 9 must divide its input's channels, but 64 go in",
        ),
        (
            "[-1, 1, nn.ConvTranspose2d, [64, 3, 2]]",
            r"kernel must be stride \+ 2 · padding, but got 3, 2 and 0",
        ),
        ("[-1, 1, SAM, [128, 0]]", r"row 2 \(SAM\): kernel must be a whole number from 1, but got 0"),
        ("[7, 1, C3, [128]]", r"row 2 \(C3\): from must name an earlier row, but got 7"),
    ],
)
def test_channels_that_do_not_match_are_refused_with_the_row(
    user_file: UserFile, row: str, message: str
) -> None:
    path = user_file("small_v4", ("[-1, 3, C3, [128]]", row))
    with pytest.raises(ModelError, match=message) as raised:
        load_spec(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_stage_may_be_split_or_laid_out_anew(user_file: UserFile) -> None:
    plain = load_spec(user_file("tiny")).to_dict()  # row 11, in the last stage, has 512 channels at stride 32
    for module, args, channels, stride in (
        ("ChannelSlice", [4, 3], 128, 32),
        ("Contract", [2], 2048, 64),
        ("Expand", [], 128, 16),
    ):
        rows = [*plain["backbone"][:11], [-1, 1, module, args]]
        head = [[[-1], 1, "Detect", ["nc", "anchors"]]]
        layer = load_spec({"nc": 1, "anchors": 3, "backbone": rows, "head": head}).layers[11]
        assert (layer.channels, layer.stride) == (channels, stride)
