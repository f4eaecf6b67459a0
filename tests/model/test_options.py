"""What any model can be told: attention, DropBlock, normalisation, activation, anchors, family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import build
from model.attention import ATTENTION, CBAM, CBAMC3, SAM, SE, PointwiseSAM
from model.blocks import Mish
from model.blocks_csp import BottleneckCSP
from model.cmbn import CmBN
from model.dropblock import DropBlock, set_dropblock
from model.notation import spread_anchors
from model.options import ATTENTIONS, Options, split_options, with_options
from model.spec import Activation, ModelError, load_spec, spec_to_yaml

UserFile = Callable[..., Path]


def activations(module: nn.Module) -> set[str]:
    kinds = (nn.SiLU, nn.Mish, nn.LeakyReLU, nn.Hardswish, nn.ReLU)
    return {type(child).__name__ for child in module.modules() if isinstance(child, kinds)}


# ---- where options come from


def test_options_may_be_keys_of_a_file_or_follow_a_name(user_file: UserFile) -> None:
    keys = "nc: 80\nattention: se\ndropblock: 0.1\nactivation: nn.Mish()\nnorm: cmbn\nloss: scaled-yolov4"
    by_file = load_spec(user_file("tiny", ("nc: 80", keys)))
    named = "attention=se&dropblock=0.1&activation=mish&norm=cmbn&loss=scaled-yolov4"
    by_name = load_spec(f"{user_file('tiny')}?{named}")
    assert by_name == by_file
    assert by_file.options == Options(attention="se", dropblock=0.1, norm="cmbn", loss="scaled-yolov4")
    assert by_file.activation == Activation("nn.Mish")
    assert load_spec(by_file.to_dict()) == by_file


def test_options_are_written_to_a_file_and_read_again(tmp_path: Path) -> None:
    spec = load_spec("yolov4?attention=cbam&dropblock=0.2&dropblock_size=5&activation=leaky")
    path = tmp_path / "yolov4.yaml"
    path.write_text(spec_to_yaml(spec), encoding="utf-8")
    assert load_spec(path) == spec
    assert spec.options.scale_xy == (1.2, 1.1, 1.05)


def test_names_with_options_are_put_together_and_taken_apart() -> None:
    name = with_options("a.yaml", attention="sam", dropblock=0.1, activation=None)
    assert name == "a.yaml?attention=sam&dropblock=0.1"
    assert with_options(name, norm="cmbn") == name + "&norm=cmbn"
    assert with_options("a.yaml", attention=None) == "a.yaml"
    assert split_options(name) == ("a.yaml", {"attention": "sam", "dropblock": 0.1})
    assert split_options("yolov5n") == ("yolov5n", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov5n?attention=sa", r"unknown attention 'sa'; did you mean 'sam'"),
        ("yolov5n?atention=sam", r"unknown option 'atention=sam'; did you mean 'attention'"),
        ("yolov5n?sam", "unknown option 'sam'"),
        ("yolov5n?dropblock=lots", "dropblock must be a number, but got 'lots'"),
        ("yolov5n?dropblock=1", "dropblock must be a number from 0 to under 1, but got 1"),
        ("yolov5n?dropblock=nan", "dropblock must be a number from 0 to under 1, but got nan"),
        ("yolov5n?dropblock_size=0", "dropblock_size must be a whole number from 1, but got 0"),
        ("yolov5n?norm=gn", "unknown norm 'gn'"),
        ("yolov5n?loss=yolov4", "unknown loss 'yolov4'"),
        ("yolov5n?family=yolov6", "unknown family 'yolov6'; did you mean"),
        ("yolov5n?activation=swish", "unknown activation 'swish'; did you mean"),
        ("yolov5n?anchors=yolov5z", "unknown model 'yolov5z'"),
        ("yolov3-tiny?anchors=yolov5l-cbam&activation=mash", "did you mean 'mish'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        load_spec(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("attention: [se]", r"attention must be a name, but got \['se'\]"),
        ("scale_xy: 1.1", "scale_xy must be a list, but got 1.1"),
        ("scale_xy: [0.5, 1]", "scale_xy must be numbers from 1 to 10"),
        ("scale_xy: [1.1]", "scale_xy must be 2 numbers, but got"),
        ("image_size: big", "image_size must be a whole number from 1, but got 'big'"),
        ("dropblok: 0.1", "unknown key 'dropblok'; did you mean 'dropblock'"),
    ],
)
def test_keys_that_cannot_be_are_refused_with_their_file(
    user_file: UserFile, keys: str, message: str
) -> None:
    path = user_file("tiny", ("nc: 80", f"nc: 80\n{keys}"))
    with pytest.raises(ModelError, match=message) as raised:
        load_spec(path)
    assert str(raised.value).startswith((str(path), "tiny"))


# ---- families


def test_a_file_with_scaled_yolov4s_modules_is_of_that_family(user_file: UserFile) -> None:
    spec = load_spec(
        user_file("small_v4", ("[-1, 3, C3, [1024, False]]]\nhead", "[-1, 1, SPPCSP, [1024]]]\nhead"))
    )
    assert (spec.options.family, spec.options.scheme) == ("scaled-yolov4", "scaled-yolov4")
    assert "its modules are those of scaled-yolov4, whose activations are taken: nn.Mish()" in spec.notes[0]
    with torch.device("meta"):
        assert activations(build(spec)) == {"Mish"}


def test_a_file_with_bottleneckcsp_behind_a_focus_stem_is_of_yolov5s_older_generations(
    user_file: UserFile,
) -> None:
    third = load_spec(user_file("small_v4", ("C3,", "BottleneckCSP,")))
    fourth = load_spec(user_file("small_v4", ("[-1, 9, C3, [256]]", "[-1, 9, BottleneckCSP, [256]]")))
    assert (third.options.family, fourth.options.family) == ("yolov5-v3.1", "yolov5-v4.0")
    with torch.device("meta"):
        detector = build(third)
        assert activations(build(fourth)) == {"SiLU", "LeakyReLU"}
    joints = {type(m.act).__name__ for m in detector.modules() if isinstance(m, BottleneckCSP)}
    assert (joints, activations(detector)) == ({"LeakyReLU"}, {"Hardswish", "LeakyReLU"})


def test_a_file_may_name_its_family_itself(user_file: UserFile) -> None:
    spec = load_spec(user_file("small_v4", ("C3,", "BottleneckCSP,"), ("nc: 80", "nc: 80\nfamily: yolov5")))
    assert (spec.options.family, spec.notes) == ("yolov5", ())


def test_plain_data_of_older_runs_keeps_the_activation_it_was_trained_with(user_file: UserFile) -> None:
    plain = load_spec(
        user_file("small_v4", ("C3,", "BottleneckCSP,"), ("nc: 80", "nc: 80\nfamily: yolov5"))
    ).to_dict()
    assert "family" not in plain
    assert load_spec(plain).options.family == "yolov5"


def test_yolov4_has_mish_in_the_backbone_leaky_in_the_neck_and_darknets_eps() -> None:
    with torch.device("meta"):
        detector = build("yolov4")
    first = len(detector.spec.backbone)
    assert activations(detector.model[:first]) == {"Mish"}
    assert activations(detector.model[first:]) == {"LeakyReLU"}
    assert {m.eps for m in detector.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    assert {m.negative_slope for m in detector.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_an_activation_that_is_asked_for_goes_before_the_familys() -> None:
    with torch.device("meta"):
        assert activations(build("yolov5s-v3.1?activation=silu")) == {"SiLU"}
        assert activations(build("yolov4-tiny?activation=mish")) == {"Mish"}
        assert activations(build("yolov5n?activation=nn.LeakyReLU(0.3)")) == {"LeakyReLU"}


def test_mish_on_a_cpu_is_its_formula_and_near_torchs() -> None:
    x = torch.linspace(-30, 30, 1001)
    assert torch.equal(Mish()(x), x * torch.tanh(nn.functional.softplus(x)))
    assert torch.allclose(Mish()(x), nn.functional.mish(x), atol=1e-6)


# ---- attention


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_stands_before_every_level_and_leaves_published_keys_alone(name: str) -> None:
    torch.manual_seed(0)
    plain, changed = build("yolov5n", classes=2), build(f"yolov5n?attention={name}", classes=2)
    more = changed.state_dict().keys() - plain.state_dict().keys()
    assert more
    assert all(key.startswith("model.24.attention.") for key in more)
    assert not plain.state_dict().keys() - changed.state_dict().keys()
    levels = changed(torch.rand(2, 3, 64, 96))
    sum(level.square().mean() for level in levels).backward()
    attention = [(key, p) for key, p in changed.named_parameters() if ".attention." in key]
    assert {key.split(".")[3] for key, _ in attention} == {"0", "1", "2"}
    assert [key for key, p in attention if p.grad is None] == []


def test_every_attention_has_a_name() -> None:
    assert tuple(ATTENTION) == ATTENTIONS


@pytest.mark.parametrize("module", [SAM(12), PointwiseSAM(12), SE(12), CBAM(12), SE(12, 4), CBAM(12, 4, 3)])
@settings(max_examples=10, deadline=None)
@given(batch=st.integers(0, 2), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_attention_only_ever_weakens(module: nn.Module, batch: int, rows: int, columns: int) -> None:
    x = torch.randn(batch, 12, rows, columns, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = module.eval()(x)
    assert y.shape == x.shape
    assert bool((y.abs() <= x.abs()).all())
    assert bool((y * x >= 0).all())


def test_channel_attention_is_one_weight_a_channel_and_spatial_attention_one_a_place() -> None:
    x = torch.rand(1, 32, 5, 6) + 0.5
    with torch.no_grad():
        by_channel = SE(32)(x) / x
        by_place = SAM(32)(x) / x
    assert torch.allclose(by_channel, by_channel[:, :, :1, :1].expand_as(x))
    assert torch.allclose(by_place, by_place[:, :1].expand_as(x))


def test_cbam_sums_what_mean_and_maximum_say_before_the_sigmoid() -> None:
    block = CBAM(32, kernel=7)
    x = torch.randn(2, 32, 5, 6)
    squeeze = block.channel_attention
    with torch.no_grad():
        said = [squeeze.f2(squeeze.f1(v).relu()) for v in (x.mean((2, 3), True), x.amax((2, 3), True))]
        y = x * torch.sigmoid(said[0] + said[1])
        place = torch.cat((y.mean(1, True), y.max(1, True)[0]), 1)
        expected = y * torch.sigmoid(block.spatial_attention.conv(place))
        assert torch.allclose(block(x), expected, atol=1e-6)


def test_the_four_level_model_has_attention_after_every_stage_of_its_backbone() -> None:
    with torch.device("meta"):
        detector = build("yolov5l-cbam", classes=7)
    stages = [row for row in detector.model if isinstance(row, CBAMC3)]
    assert [len(stage.m) for stage in stages] == [3, 9, 9, 3]
    assert [stage.cv3.conv.out_channels for stage in stages] == [128, 256, 512, 1024]
    assert detector.model[0].conv.conv.weight.shape[:2] == (64, 12)
    assert [m.in_channels for m in detector.head.m] == [256, 512, 512, 1024]
    assert {m.out_channels for m in detector.head.m} == {36}
    csp = [row for row in detector.model if isinstance(row, BottleneckCSP)]
    assert [row.cv4.conv.out_channels for row in csp] == [512]
    assert stages[3].channel_attention.f1.weight.shape[:2] == (1024 // 16, 1024)
    assert stages[3].spatial_attention.conv.kernel_size == (7, 7)


# ---- DropBlock


def test_dropblock_follows_its_schedule_and_rests_in_evaluation() -> None:
    block, x = DropBlock(0.3, 5), torch.ones(2, 64, 40, 40)
    assert block(x) is x  # nothing is dropped before the schedule says so
    for progress, expected in ((0.5, 0.15), (1.0, 0.3), (7.0, 0.3), (-1.0, 0.0)):
        set_dropblock(block, progress)
        assert block.rate == pytest.approx(expected)
    set_dropblock(block, 1.0)
    torch.manual_seed(0)
    y = block(x)
    dropped = float((y == 0).float().mean())
    assert 0.2 < dropped < 0.31  # squares overlap, so a little under the share
    assert float(y.mean()) == pytest.approx(1.0, abs=1e-3)
    assert block.eval()(x) is x


def test_dropblock_drops_whole_squares_inside_the_map() -> None:
    block = DropBlock(0.02, 3)
    set_dropblock(block, 1.0)
    torch.manual_seed(1)
    y = block(torch.ones(4, 16, 12, 9)) == 0
    assert bool(y.any())
    # Every dropped cell lies in some 3×3 square that is dropped as a whole.
    whole = nn.functional.max_pool2d(-nn.functional.avg_pool2d(-y.float(), 3, 1), 1) == 1
    spread = nn.functional.max_pool2d(nn.functional.pad(whole.float(), [2] * 4), 3, 1) == 1
    assert torch.equal(spread, y)


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(0, 2), rows=st.integers(1, 9), columns=st.integers(1, 9), share=st.floats(0, 0.99))
def test_dropblock_takes_maps_smaller_than_its_squares(
    batch: int, rows: int, columns: int, share: float
) -> None:
    block = DropBlock(share, 7)
    set_dropblock(block, 1.0)
    y = block(torch.ones(batch, 3, rows, columns))
    assert y.shape == (batch, 3, rows, columns)
    assert bool(torch.isfinite(y).all())


def test_dropblock_stands_where_the_neck_takes_from_the_backbone_and_has_no_state() -> None:
    plain, detector = build("yolov5n", classes=2), build("yolov5n?dropblock=0.5&dropblock_size=3", classes=2)
    assert detector.state_dict().keys() == plain.state_dict().keys()
    blocks = [m for m in detector.modules() if isinstance(m, DropBlock)]
    assert [(m.share, m.block) for m in blocks] == [(0.5, 3)] * 3  # rows 4, 6 and 9
    assert not any(isinstance(m, DropBlock) for m in plain.modules())
    detector.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(detector(images)[0], plain(images)[0])
        set_dropblock(detector, 1.0)
        assert not torch.equal(detector(images)[0], plain(images)[0])
        plain.load_state_dict(detector.state_dict())
        assert torch.equal(detector.eval()(images)[0], plain.eval()(images)[0])
    set_dropblock(plain, 1.0)  # a model without it is left as it is


# ---- CmBN


def test_cmbn_of_one_pass_a_step_is_batch_norm() -> None:
    ours, plain = CmBN(4, 1e-3, 0.03).double(), nn.BatchNorm2d(4, 1e-3, 0.03).double()
    assert ours.state_dict().keys() == plain.state_dict().keys()
    optimizers = [torch.optim.SGD(norm.parameters(), lr=0.1) for norm in (ours, plain)]
    for seed in range(3):
        x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed)).double() * 3 + 100
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(y) for norm, y in zip((ours, plain), inputs, strict=True)]
        for output in outputs:
            output.pow(3).sum().backward()
        assert torch.allclose(*outputs)
        assert torch.allclose(inputs[0].grad, inputs[1].grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(ours.running_mean, plain.running_mean)
    assert torch.allclose(ours.running_var, plain.running_var)
    x = torch.randn(2, 4, 3, 3).double()
    plain.load_state_dict(ours.state_dict())
    assert torch.equal(ours.eval()(x), plain.eval()(x))


def test_cmbn_gathers_statistics_over_the_passes_of_a_step_and_starts_anew_after_it() -> None:
    norm = CmBN(2, 1e-3, 0.1)
    optimizer = torch.optim.AdamW(norm.parameters(), lr=1e-3)
    whole = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 5
    for _ in range(2):
        outputs = [norm(part) for part in whole.split(2)]
        weight, bias = norm.weight.detach().view(1, -1, 1, 1), norm.bias.detach().view(1, -1, 1, 1)
        for seen, output in enumerate(outputs, 1):
            so_far = whole[: 2 * seen]
            mean, var = so_far.mean((0, 2, 3), True), so_far.var((0, 2, 3), correction=0, keepdim=True)
            expected = (whole[2 * seen - 2 : 2 * seen] - mean) / (var + 1e-3).sqrt() * weight + bias
            assert torch.allclose(output, expected, atol=1e-4)
        sum(output.pow(2).sum() for output in outputs).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_cmbn_takes_an_empty_batch() -> None:
    norm = CmBN(2, 1e-3, 0.1)
    assert norm(torch.empty(0, 2, 3, 3)).shape == (0, 2, 3, 3)
    assert norm.num_batches_tracked == 0


def test_a_model_with_cmbn_has_the_keys_of_one_without() -> None:
    plain, changed = build("yolov5n", classes=1), build("yolov5n?norm=cmbn", classes=1)
    assert changed.state_dict().keys() == plain.state_dict().keys()
    norms = [m for m in changed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(isinstance(m, CmBN) and (m.eps, m.momentum) == (1e-3, 0.03) for m in norms)
    sum(level.square().mean() for level in changed(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in changed.parameters())


# ---- anchors


def test_anchors_are_lent_by_another_model(user_file: UserFile) -> None:
    lent = load_spec("yolov5s?anchors=yolov4-csp")
    assert lent.anchors == load_spec("yolov4-csp").anchors
    assert lent.notes == ("yolov5s: the anchors are those of yolov4-csp, which is meant for 640 px",)
    tiny = user_file("tiny")
    assert load_spec(f"yolov4-tiny?anchors={tiny}").anchors == load_spec(tiny).anchors


def test_anchors_are_shared_out_anew_where_the_levels_differ() -> None:
    four = load_spec("yolov5l-cbam?anchors=yolov4-p5")
    pairs = sorted((p for level in load_spec("yolov4-p5").anchors for p in level), key=lambda p: p[0] * p[1])
    assert [len(level) for level in four.anchors] == [3] * 4
    assert [pair for level in four.anchors for pair in level] == pairs


def test_anchors_that_cannot_be_shared_out_or_are_themselves_lent_are_refused(user_file: UserFile) -> None:
    with pytest.raises(ModelError, match="16 anchors can't be shared out evenly to 3 levels"):
        load_spec("yolov5s?anchors=yolov4-p6")
    old = "anchors:\n  - [10,14, 23,27, 37,58]\n  - [81,82, 135,169, 344,319]"
    path = user_file("tiny", (old, "anchors: yolov3-tiny"))
    assert load_spec(path).anchors == load_spec("yolov3-tiny").anchors
    with pytest.raises(ModelError, match="that model has none of its own"):
        load_spec(f"yolov4-tiny?anchors={path}")
    path.write_text(path.read_text("utf-8").replace("yolov3-tiny", str(path)), encoding="utf-8")
    with pytest.raises(ModelError, match="that model has none of its own"):
        load_spec(path)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None)
def test_spreading_keeps_every_anchor(levels: int, wanted: int, seed: int) -> None:
    sides = np.random.default_rng(seed).uniform(1, 99, (levels, wanted, 2)).tolist()
    table = tuple(tuple((w, h) for w, h in level) for level in sides)
    spread = spread_anchors(table, wanted, "x")
    assert sorted(p for level in spread for p in level) == sorted(p for level in table for p in level)
